//! PostgreSQL's own client programs: finds those that fit a server, and runs them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use percent_encoding::percent_decode_str;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::config;

/// Where packages put the programs of each major version: Debian's and the PostgreSQL project's.
const VERSIONED: [(&str, &str); 2] = [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")];

/// PostgreSQL's client programs of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Where they are; `None` is wherever `PATH` finds them.
    directory: Option<PathBuf>,
    /// Their major version.
    pub major: u32,
}

impl Client {
    /// Finds the programs whose version is closest to a server's and not older: an older `pg_dump`
    /// refuses a newer server, and a newer `pg_restore` may write what an older server does not know.
    ///
    /// # Errors
    /// If there are none, with the package to install.
    pub async fn find(server_major: u32) -> Result<Self> {
        // What PATH finds comes last among equals: Debian's is a wrapper that chooses by its own rules.
        let mut places = Vec::new();
        for (parent, prefix) in VERSIONED {
            places.extend(versioned(Path::new(parent), prefix).into_iter().map(Some));
        }
        places.push(None);
        let mut found = Vec::new();
        for directory in places {
            let mut client = Self {
                directory,
                major: 0,
            };
            if let Some(major) = client.ask_version().await {
                client.major = major;
                found.push(client);
            }
        }
        closest(found, server_major)
    }

    async fn ask_version(&self) -> Option<u32> {
        let output = self.command("pg_dump").arg("--version").output().await;
        major_of(&String::from_utf8_lossy(&output.ok()?.stdout))
    }

    /// One of the programs, with nothing on its stdin; ended with the value that holds it.
    pub fn command(&self, program: &str) -> Command {
        let path = self.directory.as_deref().unwrap_or(Path::new(""));
        let mut command = Command::new(path.join(program));
        command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// One of the programs, with everything it needs to connect in its environment: a command line
    /// is there for everybody to read.
    pub fn connecting(&self, program: &str, options: &PgConnectOptions) -> Command {
        let mut command = self.command(program);
        // Either would win over the host.
        command.env_remove("PGSERVICE").env_remove("PGHOSTADDR");
        match options.get_socket() {
            Some(socket) => command.env("PGHOST", socket),
            // An IPv6 address stands in brackets in a URL, and in a URL alone.
            None => command.env("PGHOST", options.get_host().trim_matches(['[', ']'])),
        };
        let user = options.get_username();
        command
            .env("PGPORT", options.get_port().to_string())
            .env("PGUSER", user)
            .env("PGDATABASE", options.get_database().unwrap_or(user))
            .env("PGAPPNAME", options.get_application_name().unwrap_or(""))
            .env("PGOPTIONS", options.get_options().unwrap_or(""));
        // What has no getter.
        let url = options.to_url_lossy();
        if let Some(password) = url.password() {
            let password = percent_decode_str(password).decode_utf8_lossy();
            command.env("PGPASSWORD", &*password);
        }
        // The driver trusts the CAs of the system. What PostgreSQL's programs trust is in a file, which the URL may name.
        let verifies = matches!(
            options.get_ssl_mode(),
            PgSslMode::VerifyCa | PgSslMode::VerifyFull
        );
        if verifies && let Some(file) = config::system_cas() {
            command.env("PGSSLROOTCERT", file);
        }
        for (name, value) in url.query_pairs() {
            let variable = match &*name {
                "sslmode" => "PGSSLMODE",
                "sslrootcert" => "PGSSLROOTCERT",
                "sslcert" => "PGSSLCERT",
                "sslkey" => "PGSSLKEY",
                _ => continue,
            };
            // sqlx writes the path of a certificate with this before it.
            command.env(variable, value.strip_prefix("file: ").unwrap_or(&value));
        }
        command.arg("--no-password");
        command
    }
}

/// Starts a program, or says how to get it.
///
/// # Errors
/// If it is not there.
pub fn start(command: &mut Command) -> Result<Child> {
    let program = command.as_std().get_program().display().to_string();
    command.spawn().with_context(|| {
        format!("cannot start {program}: install it with the package postgresql-client")
    })
}

/// Reads what a program writes to its stderr to the end, and returns its first complaint.
pub async fn first_complaint(
    stderr: impl AsyncRead + Unpin,
    mut on_line: impl FnMut(&str),
) -> Option<String> {
    let (mut lines, mut line, mut first) = (BufReader::new(stderr), Vec::new(), None);
    while lines
        .read_until(b'\n', &mut line)
        .await
        .is_ok_and(|n| n > 0)
    {
        let text = String::from_utf8_lossy(&line);
        on_line(text.trim_end());
        first = first.or_else(|| complaint(text.trim_end()));
        line.clear();
    }
    first
}

/// What a line complains about, without the values that PostgreSQL quotes at the end of a message:
/// they may be personal data.
fn complaint(line: &str) -> Option<String> {
    let begins = ["error: ", "ERROR:  ", "FATAL:  "]
        .iter()
        .filter_map(|word| Some(line.find(word)? + word.len()))
        .min()?;
    let text = &line[begins..];
    let text = text.find(": \"").map_or(text, |end| &text[..end]);
    Some(text.to_owned())
}

fn versioned(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let versions = entries.filter(|entry| {
        let name = entry.file_name();
        let version = name.to_str().and_then(|name| name.strip_prefix(prefix));
        version.is_some_and(|version| version.parse::<u32>().is_ok())
    });
    versions.map(|entry| entry.path().join("bin")).collect()
}

/// The major version in `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
fn major_of(version: &str) -> Option<u32> {
    let (_, number) = version.split_once("(PostgreSQL) ")?;
    let end = number.find(|c: char| !c.is_ascii_digit())?;
    number[..end].parse().ok()
}

fn closest(found: Vec<Client>, server_major: u32) -> Result<Client> {
    let newest = found.iter().map(|client| client.major).max();
    let fits = found
        .into_iter()
        .filter(|client| client.major >= server_major);
    if let Some(client) = fits.min_by_key(|client| client.major) {
        return Ok(client);
    }
    let remedy = format!("install the package postgresql-client-{server_major} or a newer one");
    match newest {
        None => bail!(
            "pg_dump, pg_restore and psql are neither in PATH nor in /usr/lib/postgresql: {remedy}"
        ),
        Some(newest) => bail!(
            "pg_dump is of version {newest}, too old for the server's version {server_major}: {remedy}"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn client(directory: &str, major: u32) -> Client {
        Client {
            directory: Some(directory.into()),
            major,
        }
    }

    #[test]
    fn the_closest_version_that_is_not_older_is_taken() {
        let found = || {
            vec![
                client("a", 17),
                client("b", 13),
                client("c", 15),
                client("d", 15),
            ]
        };
        assert_eq!(closest(found(), 15).unwrap(), client("c", 15));
        assert_eq!(closest(found(), 16).unwrap(), client("a", 17));
    }

    #[test]
    fn a_missing_or_old_program_names_the_package() {
        let missing = closest(Vec::new(), 16).unwrap_err().to_string();
        assert!(
            missing.contains("pg_dump") && missing.contains("postgresql-client-16"),
            "{missing}"
        );
        let old = closest(vec![client("a", 13)], 15).unwrap_err().to_string();
        assert!(
            old.contains("13") && old.contains("postgresql-client-15"),
            "{old}"
        );
    }

    #[test]
    fn versions_of_every_packager_are_read() {
        for (line, major) in [
            ("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", 15),
            ("pg_dump (PostgreSQL) 12.22\n", 12),
            ("pg_dump (PostgreSQL) 18beta2\n", 18),
        ] {
            assert_eq!(major_of(line), Some(major), "{line}");
        }
        assert_eq!(major_of("not found"), None);
    }

    #[test]
    fn a_complaint_repeats_no_value() {
        for (line, text) in [
            (
                "psql:<stdin>:9: ERROR:  invalid input syntax for type integer: \"canary\"",
                Some("invalid input syntax for type integer"),
            ),
            (
                "pg_restore: error: could not read from input file: end of file",
                Some("could not read from input file: end of file"),
            ),
            (
                "pg_dump: error: connection to server at \"db\", port 1 failed: FATAL:  role \"x\" does not exist",
                Some(
                    "connection to server at \"db\", port 1 failed: FATAL:  role \"x\" does not exist",
                ),
            ),
            (
                "CONTEXT:  COPY bookings, line 1, column coupon: \"canary\"",
                None,
            ),
        ] {
            assert_eq!(complaint(line).as_deref(), text, "{line}");
        }
    }

    #[test]
    fn an_address_has_no_brackets_and_the_cas_of_the_system_are_a_file() {
        let url = "postgres://joe@[::1]/market?sslmode=verify-full";
        let options = crate::db::options(&Secret::new(url), "backup").unwrap();
        let command = client("/bin", 15).connecting("pg_dump", &options);
        let set = |name: &str| {
            let mut variables = command.as_std().get_envs();
            let (_, value) = variables.find(|(key, _)| *key == name)?;
            value.map(ToOwned::to_owned)
        };
        assert_eq!(set("PGHOST"), Some("::1".into()));
        assert_eq!(set("PGSSLROOTCERT"), config::system_cas());
    }

    #[test]
    fn the_whole_url_goes_into_the_environment_and_nothing_onto_the_command_line() {
        let url = "postgres://jo%40e:s%2Bp%25+%C3%A9@db.example:5433/mar%20ket?sslmode=verify-full&sslrootcert=/etc/ca.pem&options=-crole%3Downer";
        let options = crate::db::options(&Secret::new(url), "backup").unwrap();
        let command = client("/bin", 15).connecting("pg_dump", &options);
        let command = command.as_std();
        let set = |name: &str| {
            let mut variables = command.get_envs();
            let (_, value) = variables.find(|(key, _)| *key == name).unwrap();
            value.unwrap().to_str().unwrap().to_owned()
        };
        for (name, value) in [
            ("PGHOST", "db.example"),
            ("PGPORT", "5433"),
            ("PGUSER", "jo@e"),
            ("PGPASSWORD", "s+p%+é"),
            ("PGDATABASE", "mar ket"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/etc/ca.pem"),
            ("PGAPPNAME", "paxflow backup"),
        ] {
            assert_eq!(set(name), value, "{name}");
        }
        assert!(
            set("PGOPTIONS").starts_with("-crole=owner "),
            "{}",
            set("PGOPTIONS")
        );
        let arguments: Vec<_> = command.get_args().collect();
        assert_eq!(arguments, ["--no-password"]);
    }
}
