//! Producers, consumers and operators over HTTP.
