//! Any log wrapped in seeded failures.
