//! The header with the signatures, taken apart as its scheme is described.

use super::VerifyError;
use crate::scheme::{Description, SIGNATURES_MAX, TimestampAt};

/// The header with the signatures, taken apart.
pub(super) struct Entries<'a> {
    pub(super) macs: Vec<[u8; 32]>,
    pub(super) timestamp: Option<&'a [u8]>,
}

impl<'a> Entries<'a> {
    pub(super) fn parse(scheme: &Description, header: &'a [u8]) -> Result<Self, VerifyError> {
        let invalid = VerifyError::SignatureInvalid;
        let read = |entry: &[u8]| scheme.encoding.read(entry).ok_or(invalid);
        let Some(separator) = scheme.separator else {
            let entry = header.strip_prefix(scheme.prefix.as_bytes());
            return Ok(Self {
                macs: vec![read(entry.ok_or(invalid)?)?],
                timestamp: None,
            });
        };
        let mut entries = Self {
            macs: Vec::new(),
            timestamp: None,
        };
        for entry in header.split(|byte| *byte == separator) {
            if let Some(entry) = entry.strip_prefix(scheme.prefix.as_bytes()) {
                if entries.macs.len() == SIGNATURES_MAX {
                    return Err(invalid);
                }
                entries.macs.push(read(entry)?);
            } else if let Some(TimestampAt::Entry(prefix)) = &scheme.timestamp
                && let Some(digits) = entry.strip_prefix(prefix.as_bytes())
                && entries.timestamp.replace(digits).is_some()
            {
                return Err(invalid);
            }
        }
        if entries.macs.is_empty() {
            return Err(invalid);
        }
        Ok(entries)
    }
}
