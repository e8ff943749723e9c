//! The configuration: the only reader of the environment.
//!
//! Every setting is a variable of the environment, or of a `.env` file in the working directory; the
//! environment wins.

mod settings;
mod urls;

use std::ffi::OsString;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use settings::setting;
pub use settings::{SETTINGS, Setting};
use sqlx::postgres::PgConnectOptions;
pub(crate) use urls::unreadable_parameter;

/// The configuration of one process.
#[derive(Debug, Clone)]
pub struct Config {
    /// `DATABASE_URL`; holds a password.
    pub database_url: Option<Secret>,
    /// `DATABASE_DIRECT_URL`; holds a password.
    pub database_direct_url: Option<Secret>,
    /// `AMQP_URL`; holds a password.
    pub amqp_url: Option<Secret>,
    /// `PAXFLOW_HTTP_ADDR`.
    pub http_addr: SocketAddr,
    /// `PAXFLOW_EXCHANGE`.
    pub exchange: String,
    /// `PAXFLOW_QUEUE`.
    pub queue: String,
    /// `PAXFLOW_CONSUMER`.
    pub consumer: ConsumerRole,
    /// `PAXFLOW_BATCH_MAX`, in events.
    pub batch_max: usize,
    /// `PAXFLOW_BATCH_LINGER_MS`.
    pub batch_linger: Duration,
    /// `PAXFLOW_PREFETCH`, in deliveries.
    pub prefetch: u16,
    /// The database pool.
    pub pool: PoolConfig,
    /// `PAXFLOW_QUARANTINE_DAYS`; 0 keeps settled messages.
    pub quarantine_days: u16,
    /// `PAXFLOW_VERIFY_EVERY_SECS`; `None` is never.
    pub verify_every: Option<Duration>,
    /// `PAXFLOW_LOG`, a filter of tracing-subscriber.
    pub log: String,
    /// `PAXFLOW_LOG_FORMAT`; `None` leaves it to where the log goes.
    pub log_format: Option<LogFormat>,
    /// `PAXFLOW_ENV`.
    pub environment: String,
}

/// How many database connections a process may have, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// `DATABASE_POOL_SIZE`: connections that are kept.
    pub size: u32,
    /// `DATABASE_MAX_OVERFLOW`: connections beyond that, closed when returned.
    pub max_overflow: u32,
    /// `DATABASE_POOL_RECYCLE_SECS`: age at which a connection is replaced.
    pub recycle: Duration,
    /// `DATABASE_POOLER`: what stands between this pool and PostgreSQL.
    pub pooler: Pooler,
}

/// What stands between a connection and PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// Nothing: a connection is a session.
    None,
    /// One that gives a connection another session for each transaction.
    Transaction,
}

/// How a worker consumes its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsumerRole {
    /// Together with all others.
    Shared,
    /// Alone, and before those on standby.
    Active,
    /// Alone, once nobody else does.
    Standby,
}

impl ConsumerRole {
    const ALL: [Self; 3] = [Self::Shared, Self::Active, Self::Standby];

    /// As it is set.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Active => "active",
            Self::Standby => "standby",
        }
    }
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A value that must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that must not be printed.
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, to connect with.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Config {
    /// Reads the environment and `.env` in the working directory, if there is one; not that of a directory above, which may
    /// be another project's.
    ///
    /// # Errors
    /// The first variable with a wrong value, with its form and default.
    pub fn from_env() -> Result<Self> {
        match dotenvy::from_path(".env") {
            Err(error) if !error.not_found() => {
                bail!(
                    ".env cannot be read: write one NAME=value a line, values with spaces or $ in single quotes"
                )
            }
            // What is not text is no value of any setting, and is said to be wrong.
            _ => Self::from_lookup(|name| {
                std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
            }),
        }
    }

    /// Reads the configuration from anything that maps names to values.
    ///
    /// # Errors
    /// See [`Config::from_env`].
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let settings = Lookup(&lookup);
        Ok(Self {
            database_url: settings.database("DATABASE_URL")?,
            database_direct_url: settings.database("DATABASE_DIRECT_URL")?,
            amqp_url: settings.secret("AMQP_URL", &["amqp://", "amqps://"])?,
            http_addr: settings.parse("PAXFLOW_HTTP_ADDR")?,
            exchange: settings.name("PAXFLOW_EXCHANGE")?,
            queue: settings.name("PAXFLOW_QUEUE")?,
            consumer: settings.consumer()?,
            batch_max: settings.number("PAXFLOW_BATCH_MAX", 1, 10_000)? as usize,
            batch_linger: Duration::from_millis(settings.number(
                "PAXFLOW_BATCH_LINGER_MS",
                0,
                10_000,
            )?),
            prefetch: settings.number("PAXFLOW_PREFETCH", 1, u64::from(u16::MAX))? as u16,
            pool: PoolConfig {
                size: settings.number("DATABASE_POOL_SIZE", 1, 1000)? as u32,
                max_overflow: settings.number("DATABASE_MAX_OVERFLOW", 0, 1000)? as u32,
                recycle: Duration::from_secs(settings.number(
                    "DATABASE_POOL_RECYCLE_SECS",
                    1,
                    86_400,
                )?),
                pooler: settings.pooler()?,
            },
            quarantine_days: settings.number("PAXFLOW_QUARANTINE_DAYS", 0, 36_500)? as u16,
            verify_every: match settings.number("PAXFLOW_VERIFY_EVERY_SECS", 0, 604_800)? {
                0 => None,
                seconds => Some(Duration::from_secs(seconds)),
            },
            log: settings.text("PAXFLOW_LOG"),
            log_format: settings.log_format()?,
            environment: settings.text("PAXFLOW_ENV"),
        })
    }

    /// The database to work with.
    ///
    /// # Errors
    /// If `DATABASE_URL` is not set.
    pub fn database_url(&self) -> Result<&Secret> {
        self.database_url
            .as_ref()
            .ok_or_else(|| missing("DATABASE_URL"))
    }

    /// PostgreSQL itself, for what needs a session that lasts: everything but the batches of a worker.
    ///
    /// # Errors
    /// If no URL is set that leads there.
    pub fn direct_url(&self) -> Result<&Secret> {
        match (&self.database_direct_url, self.pool.pooler) {
            (Some(url), _) => Ok(url),
            (None, Pooler::None) => self.database_url(),
            (None, Pooler::Transaction) => Err(missing("DATABASE_DIRECT_URL").context(
                "this needs PostgreSQL itself and DATABASE_URL leads to a pooler (DATABASE_POOLER)",
            )),
        }
    }

    /// Whether data must not be destroyed here: whoever writes `Production` or `prod` means it.
    pub fn is_production(&self) -> bool {
        let name = self.environment.trim();
        ["production", "prod"]
            .iter()
            .any(|production| name.eq_ignore_ascii_case(production))
    }

    /// Parameters of the URLs that are not known, and ignored; each with its setting.
    pub fn ignored_parameters(&self) -> Vec<(&'static str, String)> {
        use urls::{OF_A_BROKER, OF_A_DATABASE};
        let urls = [
            ("DATABASE_URL", &self.database_url, OF_A_DATABASE),
            (
                "DATABASE_DIRECT_URL",
                &self.database_direct_url,
                OF_A_DATABASE,
            ),
            ("AMQP_URL", &self.amqp_url, OF_A_BROKER),
        ];
        let of_one = |(name, url, known): (_, &Option<Secret>, _)| {
            let url = url.as_ref().map_or("", Secret::expose);
            let ignored = urls::ignored_parameters(url, known);
            ignored
                .map(move |parameter| (name, parameter.to_owned()))
                .collect::<Vec<_>>()
        };
        urls.into_iter().flat_map(of_one).collect()
    }

    /// The setting that [`Config::direct_url`] comes from.
    pub fn direct_setting(&self) -> &'static str {
        match self.database_direct_url {
            Some(_) => "DATABASE_DIRECT_URL",
            None => "DATABASE_URL",
        }
    }

    /// The broker to work with.
    ///
    /// # Errors
    /// If `AMQP_URL` is not set.
    pub fn amqp_url(&self) -> Result<&Secret> {
        self.amqp_url.as_ref().ok_or_else(|| missing("AMQP_URL"))
    }
}

fn missing(name: &str) -> anyhow::Error {
    anyhow!(
        "{name} is not set: give it as {}, or name a file that holds it in {name}_FILE",
        setting(name).form
    )
}

/// What is wrong with a value, without the value: it may be a secret in the wrong place.
pub(crate) fn wrong(name: &str, problem: &str) -> anyhow::Error {
    let Setting { form, default, .. } = setting(name);
    let default = if default.is_empty() { "none" } else { default };
    anyhow!("{name} {problem}: expected {form} (default: {default})")
}

struct Lookup<'a, F>(&'a F);

impl<F: Fn(&str) -> Option<String>> Lookup<'_, F> {
    fn text(&self, name: &str) -> String {
        (self.0)(name).unwrap_or_else(|| setting(name).default.to_owned())
    }

    fn parse<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T> {
        self.text(name)
            .parse()
            .map_err(|error| wrong(name, &format!("has a wrong value ({error})")))
    }

    fn number(&self, name: &str, least: u64, most: u64) -> Result<u64> {
        let number = self.parse(name)?;
        if (least..=most).contains(&number) {
            Ok(number)
        } else {
            Err(wrong(name, "is out of range"))
        }
    }

    fn name(&self, name: &str) -> Result<String> {
        let value = self.text(name);
        // AMQP allows 255 bytes; the dead-letter queue's name is longer than this one.
        if value.is_empty() || value.len() > 240 || value.starts_with("amq.") {
            return Err(wrong(
                name,
                "must have 1 to 240 bytes and not begin with amq.",
            ));
        }
        Ok(value)
    }

    fn database(&self, name: &str) -> Result<Option<Secret>> {
        let url = self.secret(name, &["postgres://", "postgresql://"])?;
        if let Some(url) = &url {
            match url.expose().parse() {
                Ok(options) => urls::check_certificates(name, &options)?,
                Err(_) => {
                    let parameter = unreadable_parameter::<PgConnectOptions>(url.expose());
                    let problem = parameter.map_or("cannot be read".to_owned(), |parameter| {
                        format!("has a wrong value of {parameter}")
                    });
                    return Err(wrong(name, &problem));
                }
            }
        }
        Ok(url)
    }

    fn secret(&self, name: &str, schemes: &[&str]) -> Result<Option<Secret>> {
        let file_name = format!("{name}_FILE");
        let value = match ((self.0)(name), (self.0)(&file_name)) {
            (Some(_), Some(_)) => bail!("{name} and {file_name} are both set: set one of them"),
            (Some(value), None) => value,
            // Told without it, since it may hold a password.
            (None, Some(path)) if path.contains("://") => {
                bail!("{file_name} holds a URL: it is to name a file, and a URL is set as {name}")
            }
            (None, Some(path)) => std::fs::read_to_string(&path)
                .with_context(|| format!("{file_name}: cannot read {path}"))?
                .trim()
                .to_owned(),
            (None, None) => return Ok(None),
        };
        if !schemes.iter().any(|scheme| value.starts_with(scheme)) {
            return Err(wrong(name, "has a wrong value"));
        }
        if let Some(problem) = urls::problem(&value) {
            return Err(wrong(name, problem));
        }
        Ok(Some(Secret(value)))
    }

    fn pooler(&self) -> Result<Pooler> {
        match self.text("DATABASE_POOLER").as_str() {
            "none" => Ok(Pooler::None),
            "transaction" => Ok(Pooler::Transaction),
            _ => Err(wrong("DATABASE_POOLER", "has a wrong value")),
        }
    }

    fn consumer(&self) -> Result<ConsumerRole> {
        let text = self.text("PAXFLOW_CONSUMER");
        ConsumerRole::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| wrong("PAXFLOW_CONSUMER", "has a wrong value"))
    }

    fn log_format(&self) -> Result<Option<LogFormat>> {
        match (self.0)("PAXFLOW_LOG_FORMAT").as_deref() {
            None => Ok(None),
            Some("text") => Ok(Some(LogFormat::Text)),
            Some("json") => Ok(Some(LogFormat::Json)),
            Some(_) => Err(wrong("PAXFLOW_LOG_FORMAT", "has a wrong value")),
        }
    }
}

/// The file of the CAs that the system trusts, for programs that do not look for it: that of `SSL_CERT_FILE`, which the drivers follow
/// as well, or where Debian or Red Hat has it; `None` if it is nowhere.
pub fn system_cas() -> Option<OsString> {
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
    ];
    let there = || usual.into_iter().find(|path| Path::new(path).exists());
    std::env::var_os("SSL_CERT_FILE").or_else(|| there().map(OsString::from))
}

/// Whether a variable that is no setting of ours is set.
pub fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some()
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> Result<Config> {
        Config::from_lookup(|name| {
            pairs
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_default_is_a_good_value() {
        let config = config(&[]).unwrap();
        assert_eq!(
            (
                config.pool.size,
                config.pool.max_overflow,
                config.pool.recycle.as_secs()
            ),
            (20, 10, 3600)
        );
        assert_eq!(config.http_addr.to_string(), "127.0.0.1:9464");
        assert!(
            config
                .database_url()
                .unwrap_err()
                .to_string()
                .contains("DATABASE_URL_FILE")
        );
    }

    #[test]
    fn a_wrong_value_names_its_variable_form_and_default() {
        for (name, value) in [
            ("PAXFLOW_BATCH_MAX", "0"),
            ("PAXFLOW_BATCH_MAX", "many"),
            ("PAXFLOW_HTTP_ADDR", "localhost"),
            ("PAXFLOW_QUEUE", ""),
            ("PAXFLOW_LOG_FORMAT", "xml"),
            ("DATABASE_POOL_SIZE", "-1"),
            ("PAXFLOW_PREFETCH", "65536"),
            ("DATABASE_POOLER", "session"),
            ("PAXFLOW_CONSUMER", "alone"),
            ("DATABASE_DIRECT_URL", "postgres://db:port/x"),
        ] {
            let error = config(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
            assert!(
                error.contains(setting(name).form) && error.contains(setting(name).default),
                "{error}"
            );
        }
    }

    #[test]
    fn a_wrong_url_is_not_repeated() {
        let error = config(&[("DATABASE_URL", "mysql://joe:canary@db/x")])
            .unwrap_err()
            .to_string();
        assert!(!error.contains("canary"), "{error}");
        let config = config(&[("DATABASE_URL", "postgres://joe:canary@db/x")]).unwrap();
        assert!(!format!("{config:?}").contains("canary"));
    }

    #[test]
    fn certificates_that_protect_nothing_are_refused() {
        let said = |query: &str| {
            let url = format!("postgres://joe:canary@db/x?{query}");
            let read = config(&[("DATABASE_URL", &url)]);
            read.map_or_else(|error| format!("{error:#}"), |_| String::new())
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        let there = format!("sslrootcert={}", file.path().display());
        assert_eq!(said("sslmode=verify-full"), "");
        assert_eq!(said(&format!("sslmode=verify-full&{there}")), "");
        for (query, expected) in [
            (there.as_str(), "sslmode=verify-full"),
            (&format!("sslmode=require&{there}"), "sslmode=verify-full"),
            (
                "sslmode=verify-ca&sslrootcert=/no/such",
                "cannot read /no/such",
            ),
        ] {
            let said = said(query);
            assert!(
                said.contains("DATABASE_URL") && said.contains(expected),
                "{query}: {said}"
            );
            assert!(!said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named_and_not_its_value() {
        let url = "postgres://db/x?port=5432&sslmode=canary";
        let error = config(&[("DATABASE_URL", url)]).unwrap_err().to_string();
        let expected = "DATABASE_URL has a wrong value of sslmode: expected ";
        assert!(error.starts_with(expected), "{error}");
        assert!(!error.contains("canary"), "{error}");
    }

    #[test]
    fn behind_a_pooler_the_direct_url_has_to_be_said() {
        let url = ("DATABASE_URL", "postgres://joe@pooler/x");
        let direct = ("DATABASE_DIRECT_URL", "postgres://joe@db/x");
        let pooler = ("DATABASE_POOLER", "transaction");
        let direct_of = |pairs: &[_]| match config(pairs).unwrap().direct_url() {
            Ok(url) => url.expose().to_owned(),
            Err(error) => format!("{error:#}"),
        };
        assert_eq!(direct_of(&[url]), url.1);
        assert_eq!(direct_of(&[url, direct]), direct.1);
        assert_eq!(direct_of(&[url, direct, pooler]), direct.1);
        assert!(direct_of(&[url, pooler]).contains("DATABASE_DIRECT_URL is not set"));
    }

    #[test]
    fn a_secret_may_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "amqp://u:p@h:5672/%2f\n").unwrap();
        let path = file.path().to_str().unwrap();
        let both = [("AMQP_URL_FILE", path), ("AMQP_URL", "amqp://x")];
        assert_eq!(
            config(&both[..1]).unwrap().amqp_url().unwrap().expose(),
            "amqp://u:p@h:5672/%2f"
        );
        assert!(config(&both).unwrap_err().to_string().contains("both set"));
    }

    #[test]
    fn a_url_in_place_of_a_file_is_not_told() {
        for name in ["DATABASE_URL", "DATABASE_DIRECT_URL", "AMQP_URL"] {
            let name = format!("{name}_FILE");
            let error = config(&[(&name, "postgres://joe:canary@db/x")]).unwrap_err();
            let said = format!("{error:#}");
            assert!(
                said.starts_with(&name) && !said.contains("canary"),
                "{said}"
            );
        }
    }
}
