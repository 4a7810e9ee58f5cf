//! Finds the server and the key for the commands that ask one.

use std::{
    env,
    fmt::{self, Display},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use hookpool_client::{Consumer, Operator, Secret, Server};
use hookpool_core::key::{KeyKind, PresentedKey};

use crate::{
    cli::Globals,
    config::{self, Flags, Settings},
};

/// No key was given and none was found.
#[derive(Debug)]
pub(crate) struct NoKey {
    pub(crate) looked_for: PathBuf,
    pub(crate) why: String,
}

impl Display for NoKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no operator key: {}: {}",
            self.looked_for.display(),
            self.why
        )
    }
}

impl std::error::Error for NoKey {}

/// What stands in the place of a key is none of its kind. It is not sent: it may be another secret.
#[derive(Debug)]
pub(crate) struct WrongKey(pub(crate) &'static str);

impl Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it does not hold {}", self.0)
    }
}

impl std::error::Error for WrongKey {}

impl Globals {
    pub(crate) fn settings(&self, flags: &Flags) -> anyhow::Result<Settings> {
        Ok(self.layers(flags)?.settings()?)
    }

    pub(crate) fn layers(&self, flags: &Flags) -> Result<config::Layers, config::Invalid> {
        config::layer(config::Sources {
            file: self.config.clone(),
            env: config::environment(),
            flags: flags.with_data_dir(self.data_dir.as_deref()),
        })
    }

    pub(crate) fn server(&self) -> anyhow::Result<Server> {
        Ok(Server::new(&self.server)?)
    }

    pub(crate) fn operator(&self) -> anyhow::Result<Operator> {
        let key = match &self.operator_key_file {
            Some(file) => key_in(file, &[KeyKind::Operator])?,
            None => self.operator_key()?,
        };
        Ok(Operator::new(self.server()?, key))
    }

    /// With a read key where there is one, else with the operator key. Flags come before the environment.
    pub(crate) fn consumer(&self) -> anyhow::Result<Consumer> {
        let key = match (&self.read_key_file, &self.operator_key_file) {
            (Some(file), _) | (None, Some(file)) => key_in(file, &READS)?,
            (None, None) => match variable("HOOKPOOL_READ_KEY", &READS)? {
                Some(key) => key,
                None => self.operator_key()?,
            },
        };
        Ok(Consumer::new(self.server()?, key))
    }

    /// From the environment, else from the data folder of a server on this machine.
    fn operator_key(&self) -> anyhow::Result<Secret> {
        if let Some(key) = variable("HOOKPOOL_OPERATOR_KEY", &[KeyKind::Operator])? {
            return Ok(key);
        }
        let file = self
            .settings(&Flags::default())?
            .data_dir
            .join("operator.key");
        read(&file).map_err(|error| {
            let why = error.to_string();
            NoKey {
                looked_for: file,
                why,
            }
            .into()
        })
    }
}

/// The kinds of key that read.
const READS: [KeyKind; 2] = [KeyKind::Read, KeyKind::Operator];

fn key_in(file: &Path, kinds: &[KeyKind]) -> anyhow::Result<Secret> {
    let key = read(file).map_err(anyhow::Error::from);
    key.and_then(|key| of_kind(key, kinds))
        .with_context(|| format!("reading the key in {}", file.display()))
}

/// A key of one of these kinds, by its looks; whether it is known the server says.
fn of_kind(key: Secret, kinds: &[KeyKind]) -> anyhow::Result<Secret> {
    let presented = PresentedKey::parse(key.expose());
    if presented.is_some_and(|key| kinds.contains(&key.kind)) {
        return Ok(key);
    }
    Err(WrongKey(match kinds {
        [KeyKind::Operator] => "an operator key, which begins with ok_",
        _ => "a read key, which begins with rk_, or an operator key, which begins with ok_",
    })
    .into())
}

fn read(file: &Path) -> std::io::Result<Secret> {
    fs::read_to_string(file).map(|text| Secret::new(text.trim().to_owned()))
}

/// An empty variable is as good as none.
fn variable(name: &str, kinds: &[KeyKind]) -> anyhow::Result<Option<Secret>> {
    let key = env::var(name).ok().filter(|key| !key.is_empty());
    let key = key.map(|key| of_kind(Secret::new(key), kinds));
    key.transpose()
        .with_context(|| format!("reading the key in {name}"))
}
