//! The statements of an SQL file: to name the one that fails, and to see what would lose data. Pure.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Location, Token, Tokenizer};

/// One statement of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement<'a> {
    /// Line of the file on which it begins, from 1.
    pub line: u64,
    /// Its text, without what precedes it and without the semicolon.
    pub text: &'a str,
    /// Its unquoted words in capitals, for what kind of statement it is.
    words: Vec<String>,
}

/// Splits a file at the semicolons that end a statement; `None` if it holds something that is no SQL.
pub fn split(sql: &str) -> Option<Vec<Statement<'_>>> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location()
        .ok()?;
    let lines = line_starts(sql);
    let mut statements = Vec::new();
    let (mut start, mut words) = (None, Vec::<String>::new());
    // BEGIN ATOMIC ... END, with CASE ... END inside.
    let mut open_blocks = 0;
    for token in &tokens {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::SemiColon if open_blocks == 0 => {
                if let Some((line, start)) = start.take() {
                    let text = sql.get(start..offset(sql, &lines, token.span.start)?)?;
                    statements.push(Statement {
                        line,
                        text: text.trim_end(),
                        words: std::mem::take(&mut words),
                    });
                }
            }
            other => {
                if start.is_none() {
                    let at = token.span.start;
                    start = Some((at.line, offset(sql, &lines, at)?));
                }
                if let Token::Word(word) = other
                    && word.quote_style.is_none()
                {
                    let last = words.last().map(String::as_str);
                    let word = word.value.to_uppercase();
                    match word.as_str() {
                        "ATOMIC" if last == Some("BEGIN") => open_blocks += 1,
                        "CASE" if open_blocks > 0 => open_blocks += 1,
                        "END" if open_blocks > 0 => open_blocks -= 1,
                        _ => {}
                    }
                    words.push(word);
                }
            }
        }
    }
    if let Some((line, start)) = start {
        statements.push(Statement {
            line,
            text: sql.get(start..)?.trim_end(),
            words,
        });
    }
    Some(statements)
}

/// Byte offsets at which the lines begin.
fn line_starts(sql: &str) -> Vec<usize> {
    let after_breaks = sql.match_indices('\n').map(|(at, _)| at + 1);
    std::iter::once(0).chain(after_breaks).collect()
}

/// The byte offset of a location, whose columns count characters.
fn offset(sql: &str, lines: &[usize], at: Location) -> Option<usize> {
    let line_start = *lines.get(usize::try_from(at.line).ok()?.checked_sub(1)?)?;
    let column = usize::try_from(at.column).ok()?.checked_sub(1)?;
    let line = sql.get(line_start..)?;
    let within = line
        .char_indices()
        .map(|(at, _)| at)
        .chain([line.len()])
        .nth(column)?;
    Some(line_start + within)
}

impl Statement<'_> {
    /// Its first line, to be named by.
    pub fn headline(&self) -> &str {
        self.text.lines().next().unwrap_or_default().trim_end()
    }

    /// The kind of relation or function that it creates, and its name.
    pub fn creates(&self) -> Option<(&str, String)> {
        const BETWEEN: [&str; 9] = [
            "OR",
            "REPLACE",
            "UNLOGGED",
            "MATERIALIZED",
            "RECURSIVE",
            "IF",
            "NOT",
            "EXISTS",
            "CREATE",
        ];
        let mut words = self.words.iter().map(String::as_str);
        if self.words.first()? != "CREATE" {
            return None;
        }
        let mut next = || words.find(|word| !BETWEEN.contains(word));
        let (kind, name) = (next()?, next()?);
        ["TABLE", "VIEW", "FUNCTION"]
            .contains(&kind)
            .then(|| (kind, name.to_lowercase()))
    }

    /// Whether rows or values may be gone after it. What cannot be told counts as losing.
    pub fn may_lose_data(&self) -> bool {
        let words: Vec<_> = self.words.iter().map(String::as_str).collect();
        !match words.as_slice() {
            [
                "CREATE" | "COMMENT" | "GRANT" | "REVOKE" | "SET" | "ANALYZE",
                ..,
            ] => true,
            ["ALTER", "INDEX" | "VIEW" | "FUNCTION" | "TRIGGER", ..] => true,
            ["ALTER", "TABLE", actions @ ..] => !alters_with_loss(actions),
            // What depends on it may be a column.
            ["DROP", ..] if words.contains(&"CASCADE") => false,
            [
                "DROP",
                "VIEW" | "MATERIALIZED" | "INDEX" | "FUNCTION" | "TRIGGER" | "RULE" | "POLICY",
                ..,
            ] => true,
            // Or else it puts values in the place of others.
            ["INSERT", ..] => !words.contains(&"UPDATE"),
            _ => false,
        }
    }
}

/// `DROP COLUMN`, where COLUMN may be left out, changes of a column's type, an identity that forgets its next number, and a
/// table that a crash empties.
fn alters_with_loss(words: &[&str]) -> bool {
    let loses = |pair: &[&str]| match pair {
        ["DROP", what] => !matches!(*what, "CONSTRAINT" | "NOT" | "DEFAULT" | "EXPRESSION"),
        ["SET", what] => *what == "UNLOGGED",
        _ => false,
    };
    // Quoted names are no words: a column's may have stood behind it.
    let drops_last = words.last() == Some(&"DROP");
    drops_last
        || words.windows(2).any(loses)
        || (words.contains(&"ALTER") && words.contains(&"TYPE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_semicolon_within_text_ends_nothing() {
        let sql = "-- héad; not yet\nCREATE TABLE é (a text DEFAULT ';');\n\n\
                   CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $body$ SELECT 1; $body$;\n\
                   /* ; */ COMMENT ON TABLE \"a;b\" IS 'it''s; so'";
        let statements = split(sql).unwrap();
        let seen: Vec<_> = statements.iter().map(|s| (s.line, s.text)).collect();
        assert_eq!(
            seen,
            [
                (2, "CREATE TABLE é (a text DEFAULT ';')"),
                (
                    4,
                    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $body$ SELECT 1; $body$"
                ),
                (5, "COMMENT ON TABLE \"a;b\" IS 'it''s; so'"),
            ]
        );
    }

    #[test]
    fn semicolons_inside_a_statement_do_not_end_it() {
        let whole = [
            "SELECT 'a;b', \"c;d\", 'it''s;'",
            r"SELECT E'\';', 1",
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN; END; $$",
            "SELECT $tag$ $$ ; $tag$, $1",
            "SELECT 1 -- one; two\n + 1 /* ; /* ; */ ; */ + 1",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END",
            "SELECT caseless, end_of_it, beginning FROM \"begin atomic\"",
        ];
        for sql in whole {
            let script = format!("{sql};\nSELECT 2;");
            let found = split(&script).unwrap();
            let found: Vec<_> = found.iter().map(|statement| statement.text).collect();
            assert_eq!(found, [sql, "SELECT 2"]);
        }
    }

    #[test]
    fn every_revision_can_be_split() {
        for migration in super::super::migrate::MIGRATOR.iter() {
            let statements = split(migration.sql.as_str()).unwrap();
            assert!(!statements.is_empty(), "{}", migration.description);
            for statement in statements {
                assert!(
                    ["CREATE", "DROP", "COMMENT"].contains(&statement.words[0].as_str()),
                    "{statement:?}"
                );
            }
        }
    }

    #[test]
    fn what_is_created_is_named() {
        let creates = |sql| {
            let statements = split(sql).unwrap();
            let created = statements[0].creates();
            created.map(|(kind, name)| format!("{kind} {name}"))
        };
        for (sql, created) in [
            (
                "CREATE TABLE IF NOT EXISTS Meals (id bigint)",
                Some("TABLE meals"),
            ),
            ("CREATE OR REPLACE VIEW menu AS SELECT 1", Some("VIEW menu")),
            (
                "CREATE FUNCTION cook(meal text) RETURNS text LANGUAGE sql AS ''",
                Some("FUNCTION cook"),
            ),
            ("CREATE UNIQUE INDEX meals_name ON meals (name)", None),
            ("DROP TABLE meals", None),
        ] {
            assert_eq!(creates(sql).as_deref(), created, "{sql}");
        }
    }

    #[test]
    fn what_loses_data_is_known() {
        for (sql, loses) in [
            ("DROP TABLE bookings", true),
            ("TRUNCATE bookings", true),
            ("DELETE FROM bookings", true),
            ("UPDATE bookings SET seat = NULL", true),
            ("DO $$ BEGIN END $$", true),
            ("ALTER TABLE bookings DROP COLUMN seat", true),
            ("ALTER TABLE bookings DROP seat", true),
            ("ALTER TABLE bookings DROP \"seat\"", true),
            (
                "ALTER TABLE bookings ALTER COLUMN coupon TYPE integer",
                true,
            ),
            ("ALTER TABLE bookings SET UNLOGGED", true),
            ("ALTER TABLE users ALTER id DROP IDENTITY", true),
            ("DROP SEQUENCE numbers", true),
            ("DROP FUNCTION local_date CASCADE", true),
            ("SELECT wipe()", true),
            (
                "MERGE INTO bookings USING new ON true WHEN MATCHED THEN DELETE",
                true,
            ),
            (
                "INSERT INTO seats SELECT 1 ON CONFLICT (seat) DO UPDATE SET seat = 2",
                true,
            ),
            ("INSERT INTO seats VALUES (1)", false),
            ("DROP FUNCTION local_date", false),
            ("ALTER TABLE bookings DROP CONSTRAINT bookings_pkey", false),
            ("ALTER TABLE bookings ALTER seat DROP NOT NULL", false),
            (
                "ALTER TABLE bookings ADD COLUMN meal text DEFAULT 'DROP TABLE x'",
                false,
            ),
            ("DROP VIEW market_data", false),
            ("DROP INDEX bookings_flight", false),
            ("CREATE TABLE meals (id bigint)", false),
        ] {
            assert_eq!(split(sql).unwrap()[0].may_lose_data(), loses, "{sql}");
        }
    }
}
