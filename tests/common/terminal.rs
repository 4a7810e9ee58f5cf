//! A folder to work in, where `hookpool` is a command: what the pages print is run as it is printed.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::program::{both, command, hookpool};
use super::server::Server;

pub(crate) struct Terminal {
    folder: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Terminal {
    pub(crate) fn new(variables: Vec<(&'static str, String)>) -> Self {
        let folder = TempDir::with_prefix("hookpool-terminal-").unwrap();
        symlink(hookpool().get_program(), folder.path().join("hookpool")).unwrap();
        Self { folder, variables }
    }

    /// One whose commands find a server and its operator key.
    pub(crate) fn at(server: &Server) -> Self {
        Self::new(vec![
            ("HOOKPOOL_SERVER", server.url()),
            ("HOOKPOOL_OPERATOR_KEY", server.operator_key.clone()),
        ])
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A shell that runs these lines.
    pub(crate) fn shell(&self, lines: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut shell = command("sh");
        shell
            .env("PATH", format!("{}:{path}", self.folder.path().display()))
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .args(["-c", lines]);
        shell
    }

    pub(crate) fn run(&self, lines: &str) -> Output {
        self.shell(lines).output().unwrap()
    }

    /// Runs lines that have to end with this code, and gives what they wrote to stdout and stderr.
    #[track_caller]
    pub(crate) fn expect(&self, lines: &str, code: i32) -> (String, String) {
        let output = self.run(lines);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{lines}\n{}",
            both(&output)
        );
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }
}
