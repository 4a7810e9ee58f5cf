//! How fjall is opened: the settings (`docs/adr/0006`), and every way in which that fails as one error.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    compaction::{Leveled, filter::Factory},
};

/// Bounds replay time and memory after a kill. A second journal is begun at 64 MB.
const JOURNALS_BYTES: u64 = 128 << 20;
/// Of each keyspace.
pub(crate) const MEMTABLE_BYTES: u64 = 16 << 20;
const CACHE_BYTES: u64 = 32 << 20;
const WORKERS: usize = 2;

/// What fjall said, or that it panicked.
#[derive(Debug, Clone)]
pub(crate) struct DatabaseError(String);

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DatabaseError {}

impl From<fjall::Error> for DatabaseError {
    fn from(error: fjall::Error) -> Self {
        Self(match error {
            fjall::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        })
    }
}

/// A failed call, to be shared by everybody it failed for.
pub(crate) fn cause(error: fjall::Error) -> hookpool_store::Cause {
    Arc::new(DatabaseError::from(error))
}

/// What is not the same for all databases.
pub(crate) struct Settings {
    pub(crate) memtable_bytes: u64,
    /// Removes rows of the keyspace with this name when tables are merged.
    pub(crate) filter: Option<(&'static str, Arc<dyn Factory>)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            memtable_bytes: MEMTABLE_BYTES,
            filter: None,
        }
    }
}

/// Opens or creates a database with these keyspaces.
///
/// Damaged metadata makes fjall panic in places; that is a refusal like any other.
pub(crate) fn open<const N: usize>(
    path: &Path,
    names: [&str; N],
    settings: Settings,
) -> Result<(Database, [Keyspace; N]), DatabaseError> {
    let Settings {
        memtable_bytes,
        filter,
    } = settings;
    let filter_of = move |name: &str| {
        let filter = filter.as_ref().filter(|(of, _)| *of == name);
        filter.map(|(_, filter)| Arc::clone(filter))
    };
    guarded(|| {
        let database = Database::builder(path)
            .with_compaction_filter_factories(Arc::new(filter_of))
            .worker_threads(WORKERS)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNALS_BYTES)
            // So that our blocks can be found in a journal without fjall.
            .journal_compression(CompressionType::None)
            .open()?;
        let keyspaces: Result<Vec<_>, _> = names
            .into_iter()
            .map(|name| database.keyspace(name, || keyspace_options(memtable_bytes)))
            .collect();
        // As many as there are names.
        let keyspaces = keyspaces?
            .try_into()
            .map_err(|_| DatabaseError("keyspaces are missing".into()))?;
        Ok((database, keyspaces))
    })
}

/// Never Fifo: it deletes by design.
fn keyspace_options(memtable_bytes: u64) -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(memtable_bytes)
        .compaction_strategy(Arc::new(Leveled::default()))
}

/// Creates a database and makes it durable.
pub(crate) fn create<const N: usize>(path: &Path, names: [&str; N]) -> Result<(), DatabaseError> {
    let (database, keyspaces) = open(path, names, Settings::default())?;
    database.persist(PersistMode::SyncAll)?;
    drop(keyspaces);
    Ok(())
}

/// Runs code that may panic on damaged bytes.
pub(crate) fn guarded<T>(
    run: impl FnOnce() -> Result<T, DatabaseError>,
) -> Result<T, DatabaseError> {
    // What was half made is dropped with the error; nothing of it is looked at again.
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        Err(DatabaseError(format!("the database panicked: {text}")))
    })
}
