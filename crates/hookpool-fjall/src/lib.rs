//! Keeps the promises of hookpool-store on fjall.
