//! A script into its statements.

/// A statement, and the line of the script that it begins on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Statement<'a> {
    pub(super) line: usize,
    pub(super) sql: &'a str,
}

/// Splits a script at the semicolons that end a statement: not those in strings, quoted names,
/// comments and bodies of functions.
pub(super) fn statements(script: &str) -> Vec<Statement<'_>> {
    let mut found = Vec::new();
    let (mut start, mut at) = (0, 0);
    // BEGIN ATOMIC ... END, with CASE ... END inside.
    let mut open_blocks = 0;
    let mut last_word = "";
    while at < script.len() {
        let rest = &script[at..];
        let length = token(rest);
        let token = &rest[..length];
        let word = |wanted: &str| token.eq_ignore_ascii_case(wanted);
        if word("atomic") && last_word.eq_ignore_ascii_case("begin")
            || open_blocks > 0 && word("case")
        {
            open_blocks += 1;
        } else if open_blocks > 0 && word("end") {
            open_blocks -= 1;
        } else if token == ";" && open_blocks == 0 {
            found.extend(statement(script, start, at));
            start = at + 1;
        }
        if !token.trim().is_empty() {
            last_word = token;
        }
        at += length;
    }
    found.extend(statement(script, start, script.len()));
    found
}

/// A piece of a script, without the comments before it; nothing if it has only these.
fn statement(script: &str, start: usize, end: usize) -> Option<Statement<'_>> {
    let mut begin = start;
    loop {
        let rest = &script[begin..end];
        let blank = rest.len() - rest.trim_start().len();
        let comment = rest.trim_start();
        if comment.is_empty() {
            return None;
        }
        begin += blank;
        if !comment.starts_with("--") && !comment.starts_with("/*") {
            break;
        }
        begin += token(comment);
    }
    Some(Statement {
        line: script[..begin].matches('\n').count() + 1,
        sql: &script[begin..end],
    })
}

/// The length of the token that a text begins with.
fn token(text: &str) -> usize {
    let within = |end: Option<usize>| end.unwrap_or(text.len());
    let Some(first) = text.chars().next() else {
        return 0;
    };
    if text.starts_with("--") {
        return within(text.find('\n'));
    }
    if text.starts_with("/*") {
        return block_comment(text);
    }
    if first == '\'' || first == '"' {
        // A doubled quote is two strings side by side: the same end.
        return within(text[1..].find(first).map(|end| end + 2));
    }
    if (first == 'e' || first == 'E') && text[1..].starts_with('\'') {
        return escaped_string(text);
    }
    if let Some(tag) = dollar_tag(text) {
        let body = &text[tag.len()..];
        return within(body.find(tag).map(|end| end + 2 * tag.len()));
    }
    if is_word(first) {
        return within(text.find(|next| !is_word(next) && next != '$'));
    }
    first.len_utf8()
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// `$$` or `$name$`.
fn dollar_tag(text: &str) -> Option<&str> {
    let end = text.strip_prefix('$')?.find('$')? + 2;
    let name = &text[1..end - 1];
    (name.chars().all(is_word) && !name.starts_with(|first: char| first.is_ascii_digit()))
        .then(|| &text[..end])
}

/// `E'...'`, where a backslash takes the next character with it.
fn escaped_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(2) {
        if character == '\'' && !escaped {
            return at + 1;
        }
        escaped = character == '\\' && !escaped;
    }
    text.len()
}

/// `/* ... */`, which may hold others.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let found: Vec<_> = statements(&script)
                .into_iter()
                .map(|statement| statement.sql)
                .collect();
            assert_eq!(found, [sql, "SELECT 2"]);
        }
    }

    #[test]
    fn a_statement_is_found_by_its_line_without_the_comments_before_it() {
        let script =
            "-- first; of all\n\nSELECT 1;\n/* then */ -- and\n\n  SELECT\n 2\n;\n-- the end\n";
        let found: Vec<_> = statements(script)
            .into_iter()
            .map(|statement| (statement.line, statement.sql.trim()))
            .collect();
        assert_eq!(found, [(3, "SELECT 1"), (6, "SELECT\n 2")]);
    }
}
