//! One function per promise of the contracts; every backend runs them all.
