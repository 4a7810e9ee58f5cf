//! The key files of a data folder: readable by their owner only.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use hookpool_core::{key::Secret, seal::MasterKey};
use hookpool_engine::entropy::Entropy;

/// The key that opens the signing keys of a data folder: from `HOOKPOOL_MASTER_KEY` (64 hex digits), else from `master.key`
/// beside the log, which is made with the folder.
pub(crate) fn master_key(data_dir: &Path, new_folder: bool) -> anyhow::Result<MasterKey> {
    if let Ok(hex) = std::env::var("HOOKPOOL_MASTER_KEY") {
        return parse(&hex).context("HOOKPOOL_MASTER_KEY is not 64 hex digits");
    }
    let path = data_dir.join("master.key");
    let damaged = || {
        format!(
            "{} is damaged: it does not hold 64 hex digits; restore it from a backup, or set HOOKPOOL_MASTER_KEY",
            path.display()
        )
    };
    match fs::read_to_string(&path) {
        Ok(hex) => parse(hex.trim()).with_context(damaged),
        Err(error) if error.kind() == ErrorKind::NotFound && new_folder => {
            let bytes = Entropy::System.bytes::<32>();
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            write_private(&path, &hex)?;
            Ok(MasterKey::new(&bytes))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!(
                "{} is missing, and it opens the signing keys; restore it from a backup, or set HOOKPOOL_MASTER_KEY",
                path.display()
            )
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => Err(error).with_context(damaged),
        Err(error) => Err(error).with_context(|| {
            format!(
                "{} can't be read; give this user the right to",
                path.display()
            )
        }),
    }
}

/// Where an operator key is kept that was made here.
pub(crate) fn operator_key_file(data_dir: &Path) -> PathBuf {
    data_dir.join("operator.key")
}

/// Keeps an operator key.
pub(crate) fn write_operator_key(data_dir: &Path, key: &Secret) -> anyhow::Result<()> {
    write_private(&operator_key_file(data_dir), key.expose())
}

fn parse(hex: &str) -> Option<MasterKey> {
    let digits = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate().filter(|_| digits) {
        *byte = u8::from_str_radix(hex.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    digits.then(|| MasterKey::new(&bytes))
}

/// Writes a file that only its owner may read, durably: through a new file, so that no half of it is ever there.
fn write_private(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        let temporary = path.with_extension("new");
        // Left by a start that was cut; a new file has no other rights than ours.
        let _absent = fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    };
    write().with_context(|| format!("{} can't be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_new_folder_gets_a_private_key_and_an_old_one_must_have_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(master_key(folder.path(), false).is_err());
        master_key(folder.path(), true).unwrap();
        let mode = fs::metadata(folder.path().join("master.key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        master_key(folder.path(), false).unwrap();
        fs::write(folder.path().join("master.key"), "abc").unwrap();
        assert!(master_key(folder.path(), false).is_err());
    }

    #[test]
    fn a_master_key_is_64_hex_digits() {
        assert!(parse(&"0f".repeat(32)).is_some());
        for bad in [
            "",
            "0f",
            &"0g".repeat(32),
            &"0f".repeat(33),
            &"é".repeat(32),
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }
}
