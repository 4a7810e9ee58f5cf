//! The settings: one table of names, types, defaults and words, filled in layers.
//!
//! Defaults, then the TOML file, then `HOOKPOOL_*` variables, then flags; a later layer wins. Every value remembers where it
//! came from, and a name that is not in the table is an error in every layer.

mod file;
mod flags;
mod setting;

use std::{collections::BTreeMap, env, fmt, net::SocketAddr, path::PathBuf, time::Duration};

pub(crate) use flags::Flags;
pub(crate) use setting::{CoreDumps, LogFormat};
use setting::{Networks, Origins, PublicUrl, Setting};

/// What is known about a setting without its value.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    /// In the file, with its table: `limits.body-bytes`.
    pub(crate) name: &'static str,
    default: Option<&'static str>,
    /// Without its dashes; none for what belongs into a file.
    flag: Option<&'static str>,
    pub(crate) doc: &'static str,
    /// What its values are called in help texts.
    kind: &'static str,
    check: fn(&str) -> Result<(), String>,
}

impl Key {
    /// `HOOKPOOL_LIMITS_BODY_BYTES`.
    fn variable(&self) -> String {
        format!(
            "HOOKPOOL_{}",
            self.name.replace(['.', '-'], "_").to_uppercase()
        )
    }
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $field:ident: $type:ty = $name:literal $(or $default:literal)? $(, flag $flag:literal)?;)+) => {
        /// The settings in force.
        #[derive(Debug, Clone)]
        pub(crate) struct Settings {
            $($(#[doc = $doc])+ pub(crate) $field: $type,)+
        }

        /// All settings in the order in which they are shown.
        pub(crate) const KEYS: &[Key] = &[$(Key {
            name: $name,
            default: settings!(@option $($default)?),
            flag: settings!(@option $($flag)?),
            doc: concat!($($doc),+).trim_ascii(),
            kind: <$type>::KIND,
            check: |text| <$type>::parse(text).map(drop),
        },)+];

        impl Settings {
            /// Every text was checked when its layer was read, so what fails here is a value that is missing.
            fn from_texts(text: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
                Ok(Self {
                    $($field: match text($name) {
                        Some(text) => <$type>::parse(&text)?,
                        None => <$type>::absent().ok_or(concat!($name, " has no value"))?,
                    },)+
                })
            }
        }
    };
    (@option) => { None };
    (@option $value:literal) => { Some($value) };
}

settings! {
    /// Folder of log, pool and keys.
    data_dir: PathBuf = "data-dir" or "hookpool-data", flag "data-dir";
    /// Address to listen on.
    listen: SocketAddr = "listen" or "127.0.0.1:8080", flag "listen";
    /// URL under which senders reach the server, for the URLs it prints.
    public_url: Option<PublicUrl> = "public-url", flag "public-url";
    /// Origins whose pages may read and fetch tickets, with commas in between.
    cors_origins: Origins = "cors-origins", flag "cors-origins";
    /// Proxies that are believed in X-Forwarded-For: addresses and networks, with commas in between.
    trusted_proxies: Networks = "trusted-proxies";
    /// How the server logs to stderr.
    log_format: LogFormat = "log-format" or "text", flag "log-format";
    /// Whether a crash may write the memory of the server, its signing keys included, to a core dump.
    core_dumps: CoreDumps = "core-dumps" or "off", flag "core-dumps";
    /// Largest body of a delivery, in bytes.
    body_bytes: usize = "limits.body-bytes" or "1048576";
    /// Largest request of many events, in bytes; each of its events is a delivery.
    ingest_body_bytes: usize = "limits.ingest-body-bytes" or "16777216";
    /// Bodies that wait for the log, in bytes; more is answered with 503.
    queue_bytes: usize = "limits.queue-bytes" or "67108864";
    /// Connections at a time.
    connections: usize = "limits.connections" or "16384";
    /// Change streams at a time; the other connections are left to senders.
    followers: usize = "limits.followers" or "15360";
    /// Until the first byte of a new connection, and from the first byte of a request's head to its last.
    header_timeout: Duration = "limits.header-timeout-seconds" or "5";
    /// How long a request's body may take.
    body_timeout: Duration = "limits.body-timeout-seconds" or "10";
    /// How long a request of many events may take.
    ingest_body_timeout: Duration = "limits.ingest-body-timeout-seconds" or "60";
    /// How long a connection is kept between two requests.
    keep_alive: Duration = "limits.keep-alive-seconds" or "60";
    /// How long a client may take nothing of what is sent to it.
    write_timeout: Duration = "limits.write-timeout-seconds" or "30";
    /// How long requests may take to end after SIGTERM.
    drain: Duration = "limits.drain-seconds" or "10";
    /// How often in a minute an address may show what is no key; more is answered with 429, but never a good key.
    auth_failures: u32 = "limits.auth-failures-per-minute" or "600";
    /// Refused deliveries that are kept.
    rejections: usize = "limits.rejections" or "10000";
    /// Bytes of refused deliveries that are kept.
    rejection_bytes: usize = "limits.rejection-bytes" or "67108864";
    /// Certificate chain, PEM; makes the server speak HTTPS.
    tls_cert: Option<PathBuf> = "tls.cert", flag "tls-cert";
    /// Private key of the certificate, PEM.
    tls_key: Option<PathBuf> = "tls.key", flag "tls-key";
}

/// Largest request of many events that may be allowed.
const INGEST_BODY_BYTES_MAX: usize = 64 << 20;

/// Variables that are not settings of the server.
const OTHER_VARIABLES: &[&str] = &[
    "HOOKPOOL_CONFIG",
    "HOOKPOOL_INGEST_KEY",
    "HOOKPOOL_MASTER_KEY",
    "HOOKPOOL_OPERATOR_KEY",
    "HOOKPOOL_READ_KEY",
    "HOOKPOOL_SERVER",
    "HOOKPOOL_SIGNING_KEY",
];

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Default,
    File { path: PathBuf, line: usize },
    Variable(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// Everything that is wrong, a sentence each.
#[derive(Debug)]
pub(crate) struct Invalid(pub(crate) Vec<String>);

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration is invalid: {}", self.0.join("; "))
    }
}

impl std::error::Error for Invalid {}

/// What the layers are made of, so that tests need no environment.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) file: Option<PathBuf>,
    pub(crate) env: Vec<(String, String)>,
    /// Checked by clap already.
    pub(crate) flags: Vec<(&'static Key, String)>,
}

/// The `HOOKPOOL_*` variables of the process.
pub(crate) fn environment() -> Vec<(String, String)> {
    env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .filter(|(name, _)| name.starts_with("HOOKPOOL_"))
        .collect()
}

/// Values with their origin, by the name of their key.
#[derive(Debug)]
pub(crate) struct Layers(BTreeMap<&'static str, (String, Origin)>);

/// Lays the sources over each other.
pub(crate) fn layer(sources: Sources) -> Result<Layers, Invalid> {
    let mut builder = Builder::default();
    for key in KEYS {
        if let Some(default) = key.default {
            builder.set(key, default.to_owned(), Origin::Default);
        }
    }
    if let Some(path) = &sources.file {
        builder.file(path);
    }
    builder.variables(sources.env);
    for (key, value) in sources.flags {
        builder.set(key, value, Origin::Flag(key.flag.unwrap_or(key.name)));
    }
    builder.finish()
}

#[derive(Default)]
struct Builder {
    values: BTreeMap<&'static str, (String, Origin)>,
    wrong: Vec<String>,
}

impl Builder {
    fn set(&mut self, key: &'static Key, value: String, origin: Origin) {
        match (key.check)(&value) {
            Ok(()) => drop(self.values.insert(key.name, (value, origin))),
            Err(why) => self.wrong.push(format!("{origin}: {} {why}", key.name)),
        }
    }

    fn variables(&mut self, env: Vec<(String, String)>) {
        for (name, value) in env {
            if OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            match KEYS.iter().find(|key| key.variable() == name) {
                Some(key) => self.set(key, value, Origin::Variable(name)),
                None => self.wrong.push(format!("{name}: there is no such setting")),
            }
        }
    }

    fn finish(mut self) -> Result<Layers, Invalid> {
        self.check_together();
        if self.wrong.is_empty() {
            Ok(Layers(self.values))
        } else {
            Err(Invalid(self.wrong))
        }
    }

    /// What no setting can see alone.
    fn check_together(&mut self) {
        if self.values.contains_key("tls.cert") != self.values.contains_key("tls.key") {
            self.wrong
                .push("tls.cert and tls.key belong together: set both or none".to_owned());
        }
        let number = |name| {
            self.values
                .get(name)
                .and_then(|(text, _)| text.parse::<usize>().ok())
        };
        let queue = number("limits.queue-bytes");
        let bodies = ["limits.body-bytes", "limits.ingest-body-bytes"];
        if let Some(name) = bodies.into_iter().find(|name| queue < number(name)) {
            self.wrong.push(format!(
                "limits.queue-bytes is less than {name}: the largest body would never fit"
            ));
        }
        // The log reads no block over 256 MiB, and what is around a body counts too.
        if number("limits.ingest-body-bytes") > Some(INGEST_BODY_BYTES_MAX) {
            self.wrong.push(format!(
                "limits.ingest-body-bytes is more than {INGEST_BODY_BYTES_MAX}"
            ));
        }
    }
}

impl Layers {
    /// The settings as types.
    pub(crate) fn settings(&self) -> Result<Settings, Invalid> {
        Settings::from_texts(|name| Some(self.0.get(name)?.0.clone()))
            .map_err(|why| Invalid(vec![why]))
    }

    /// A value and its origin, if it is set.
    pub(crate) fn get(&self, key: &Key) -> Option<&(String, Origin)> {
        self.0.get(key.name)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn with_file(text: &str, sources: Sources) -> Result<Layers, Invalid> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        layer(Sources {
            file: Some(file.path().to_owned()),
            ..sources
        })
    }

    fn env(pairs: &[(&str, &str)]) -> Sources {
        let env = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        Sources {
            env,
            ..Sources::default()
        }
    }

    fn key(name: &str) -> &'static Key {
        KEYS.iter().find(|key| key.name == name).unwrap()
    }

    #[test]
    fn defaults_are_valid_and_typed() {
        let settings = layer(Sources::default()).unwrap().settings().unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("hookpool-data"));
        assert_eq!(settings.listen, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(
            (settings.body_bytes, settings.queue_bytes),
            (1 << 20, 64 << 20)
        );
        assert_eq!(settings.header_timeout, Duration::from_secs(5));
        assert_eq!(settings.log_format, LogFormat::Text);
        assert_eq!(settings.core_dumps, CoreDumps::Off);
        assert!(settings.public_url.is_none() && settings.tls_cert.is_none());
    }

    #[test]
    fn later_layers_win_and_origins_are_kept() {
        let file = "data-dir = 'from-file'\nlisten = '1.1.1.1:1'\n\n[limits]\nbody-bytes = 10\nconnections = 7\n";
        let mut sources = env(&[
            ("HOOKPOOL_LISTEN", "2.2.2.2:2"),
            ("HOOKPOOL_LIMITS_BODY_BYTES", "20"),
        ]);
        sources.flags = vec![(key("listen"), "3.3.3.3:3".to_owned())];
        let layers = with_file(file, sources).unwrap();
        let settings = layers.settings().unwrap();
        assert_eq!(settings.data_dir, PathBuf::from("from-file"));
        assert_eq!(settings.listen, "3.3.3.3:3".parse().unwrap());
        assert_eq!((settings.body_bytes, settings.connections), (20, 7));

        let origin = |name| layers.get(key(name)).unwrap().1.to_string();
        assert_eq!(origin("listen"), "--listen");
        assert_eq!(origin("limits.body-bytes"), "HOOKPOOL_LIMITS_BODY_BYTES");
        assert!(origin("limits.connections").ends_with(":6"));
        assert!(origin("data-dir").ends_with(":1"));
        assert_eq!(origin("limits.drain-seconds"), "default");
    }

    #[test]
    fn unknown_names_are_errors_in_every_layer() {
        let wrong = with_file(
            "listen = '1.1.1.1:1'\nport = 1\n[limits]\nbody_bytes = 1\n[other]\nx = 1\n",
            env(&[
                ("HOOKPOOL_PORT", "1"),
                ("HOOKPOOL_SERVER", "http://h"),
                ("HOOKPOOL_READ_KEY", "x"),
            ]),
        )
        .unwrap_err()
        .0;
        assert_eq!(wrong.len(), 4, "{wrong:?}");
        for end in [
            ":2: there is no such setting: port",
            ":4: there is no such setting: limits.body_bytes",
            ":6: there is no such setting: other.x",
        ] {
            assert!(
                wrong.iter().any(|sentence| sentence.ends_with(end)),
                "{end} in {wrong:?}"
            );
        }
        assert_eq!(wrong[3], "HOOKPOOL_PORT: there is no such setting");
    }

    #[test]
    fn broken_values_are_told_with_their_place() {
        for (text, end) in [
            (
                "\nlisten = 'nonsense'\n",
                ":2: listen is not an address with a port, such as 127.0.0.1:8080",
            ),
            ("listen = [1]\n", ":1: listen is not a text or a number"),
            ("limits = 1\n", ":1: there is no such setting: limits"),
            (
                "[limits]\nconnections = 0\n",
                ":2: limits.connections is not a whole number from 1 on",
            ),
            (
                "[limits]\ndrain-seconds = -1\n",
                ":2: limits.drain-seconds is not a whole number of seconds from 1 to 86400",
            ),
            (
                "public-url = 'h'\n",
                ":1: public-url does not start with http:// or https://",
            ),
            (
                "cors-origins = '*'\n",
                ":1: cors-origins is not a list of origins such as https://app.example.com, without a path",
            ),
            (
                "log-format = 'xml'\n",
                ":1: log-format is not one of text, json",
            ),
            (
                "[tls]\ncert = 'c'\n",
                "tls.cert and tls.key belong together: set both or none",
            ),
            (
                "[limits]\nqueue-bytes = 5\n",
                "less than limits.body-bytes: the largest body would never fit",
            ),
            (
                "[limits]\nqueue-bytes = 2000000\n",
                "less than limits.ingest-body-bytes: the largest body would never fit",
            ),
            (
                "[limits]\ningest-body-bytes = 67108865\nqueue-bytes = 80000000\n",
                "limits.ingest-body-bytes is more than 67108864",
            ),
        ] {
            let wrong = with_file(text, Sources::default()).unwrap_err().0;
            assert!(wrong.len() == 1 && wrong[0].ends_with(end), "{wrong:?}");
        }
        let wrong = with_file("listen = 'a'\nlisten = 'b'\n", Sources::default())
            .unwrap_err()
            .0;
        assert!(wrong[0].contains(":2: "), "{wrong:?}");
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let file = Some(PathBuf::from("/nowhere/hookpool.toml"));
        assert!(
            layer(Sources {
                file,
                ..Sources::default()
            })
            .is_err()
        );
    }

    #[test]
    fn variables_are_named_after_their_key() {
        assert_eq!(key("data-dir").variable(), "HOOKPOOL_DATA_DIR");
        assert_eq!(key("tls.cert").variable(), "HOOKPOOL_TLS_CERT");
    }
}
