//! The running pipeline: append, project, follow.
