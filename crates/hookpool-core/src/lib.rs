//! Turns bytes into verified, shaped, encoded events and folds events into state.
