//! The settings that have a flag, as arguments of a command.

use std::path::Path;

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::{KEYS, Key};

/// The flags that were given. `--data-dir` is not among them: every command has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// All flags of the layer.
    pub(crate) fn with_data_dir(&self, data_dir: Option<&Path>) -> Vec<(&'static Key, String)> {
        let data_dir = data_dir.map(|path| ("data-dir", path.to_string_lossy().into_owned()));
        let given = self.0.iter().cloned().chain(data_dir);
        given
            .filter_map(|(flag, value)| {
                Some((KEYS.iter().find(|key| key.flag == Some(flag))?, value))
            })
            .collect()
    }
}

fn keys() -> impl Iterator<Item = (&'static str, &'static Key)> {
    KEYS.iter()
        .filter_map(|key| Some((key.flag?, key)))
        .filter(|(flag, _)| *flag != "data-dir")
}

fn argument((flag, key): (&'static str, &'static Key)) -> Arg {
    let doc = key.doc.trim_end_matches('.');
    let help = match key.default {
        Some(default) => format!("{doc} [default: {default}]"),
        None => doc.to_owned(),
    };
    let check = |text: &str| (key.check)(text).map(|()| text.to_owned());
    Arg::new(flag)
        .long(flag)
        .value_name(key.kind)
        .help(help)
        .value_parser(check)
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(keys().map(argument))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given =
            keys().filter_map(|(flag, _)| Some((flag, matches.get_one::<String>(flag)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
