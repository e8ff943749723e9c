//! The statements that lead from one schema to another, written out.

use std::collections::BTreeSet;

use super::difference::{Difference, in_order};
use super::hold::{Held, lost_by_drop};
use super::snapshot::{Kind, Object, Snapshot};

/// One direction of a change.
pub(super) struct Script {
    pub(super) sql: String,
    /// Statements that are commented out, and differences that none was written for.
    pub(super) held_back: usize,
}

/// Writes what turns the old schema into the new one; nothing if they are equal.
pub(super) fn script(difference: &Difference<'_>, held: &Held<'_>) -> Option<Script> {
    let Difference { old, new, .. } = *difference;
    let (drops, builds) = (difference.drop_needs(), difference.build_needs());
    let by_hand = by_hand(old, new);
    let mut statements = Vec::new();
    // Each was put after those that it needs: dropped, it goes before them.
    for identity in in_order(old, &drops).into_iter().rev() {
        let object = &old.objects[identity];
        statements.push(Statement {
            sql: object.drop_sql.clone(),
            held: held.drops.get(identity).copied(),
            remark: dropped_for_a_while(difference, object).or_else(|| loses(difference, object)),
        });
    }
    for identity in in_order(new, &builds) {
        let object = &new.objects[identity];
        statements.push(Statement {
            sql: build_sql(difference, object),
            held: held.builds.get(identity).copied(),
            remark: may_fail(difference, object),
        });
    }
    if statements.is_empty() && by_hand.is_empty() {
        return None;
    }
    let held_back = by_hand.len()
        + statements
            .iter()
            .filter(|statement| statement.held.is_some())
            .count();
    let mut sql = String::new();
    if held_back > 0 {
        sql += &format!(
            "-- Held back here: {held_back}, because it could lose data or has to be written by hand.\n\
             -- Decide on each, in the up and in the down file.\n\n"
        );
    }
    for line in by_hand {
        sql += &format!("-- By hand: {line}\n\n");
    }
    let functions = builds
        .keys()
        .any(|identity| new.objects[*identity].kind == Kind::Function);
    if functions {
        sql += "-- Functions may name what is made further down.\nSET LOCAL check_function_bodies = off;\n\n";
    }
    for statement in &statements {
        statement.write(&mut sql);
    }
    Some(Script { sql, held_back })
}

struct Statement {
    sql: String,
    held: Option<&'static str>,
    remark: Option<&'static str>,
}

impl Statement {
    fn write(&self, script: &mut String) {
        match self.held {
            Some(reason) => {
                *script += &format!("-- Held back: {reason}.\n");
                for line in format!("{};", self.sql).lines() {
                    *script += format!("-- {line}").trim_end();
                    *script += "\n";
                }
            }
            None => {
                if let Some(remark) = self.remark {
                    *script += &format!("-- {remark}\n");
                }
                *script += &format!("{};\n", self.sql);
            }
        }
        *script += "\n";
    }
}

/// What differs among the objects that are compared only.
fn by_hand(old: &Snapshot, new: &Snapshot) -> Vec<String> {
    let others = |snapshot: &Snapshot| {
        let others = snapshot.objects.values();
        others
            .filter(|object| object.kind == Kind::Other)
            .map(|object| (object.identity.clone(), object.definition.clone()))
            .collect::<BTreeSet<_>>()
    };
    let (old, new) = (others(old), others(new));
    let gone = old.difference(&new);
    let come = new.difference(&old);
    gone.map(|(identity, definition)| {
        format!("no longer wanted: {}", one_line(identity, definition))
    })
    .chain(come.map(|(identity, definition)| format!("wanted: {}", one_line(identity, definition))))
    .collect()
}

fn one_line(identity: &str, definition: &str) -> String {
    let words: Vec<_> = definition.split_whitespace().collect();
    format!("{identity} {}", words.join(" "))
        .trim_end()
        .to_owned()
}

fn dropped_for_a_while(difference: &Difference<'_>, old: &Object) -> Option<&'static str> {
    let comes_again = difference.created.contains(old.identity.as_str());
    (comes_again && matches!(old.kind, Kind::View | Kind::Function))
        .then_some("Made again below; privileges on it have to be granted again.")
}

fn loses(difference: &Difference<'_>, old: &Object) -> Option<&'static str> {
    let new = difference.new.objects.get(&old.identity);
    lost_by_drop(old, new).map(|_| "What has been stored here since is lost.")
}

fn may_fail(difference: &Difference<'_>, new: &Object) -> Option<&'static str> {
    if difference.altered.contains(new.identity.as_str()) {
        return None;
    }
    let without = |kind| parts(difference, new).all(|part| part.kind != kind);
    let empty = || {
        !without(Kind::NotNull)
            && without(Kind::Default)
            && without(Kind::Identity)
            && new.signature.is_empty()
    };
    let column_stays = || {
        let column = new.owner.as_deref();
        column.is_some_and(|column| difference.old.objects.contains_key(column))
    };
    match new.kind {
        Kind::NotNull => Some("Fails if a row has no value: fill it first."),
        Kind::Identity if column_stays() => Some(
            "Begins at 1, whatever is stored: let it RESTART WITH a number beyond, or new rows meet those that are there.",
        ),
        Kind::Column if empty() => {
            Some("Fails if the table has rows: give it a default, or fill it before NOT NULL.")
        }
        _ => None,
    }
}

fn build_sql(difference: &Difference<'_>, new: &Object) -> String {
    if difference.altered.contains(new.identity.as_str()) {
        return new.alter_sql.clone().unwrap_or_default();
    }
    match new.kind {
        Kind::Table => table_sql(difference, new),
        Kind::Column => with_properties(difference, &new.create_sql, new),
        _ => new.create_sql.clone(),
    }
}

/// The objects that the statement which makes this one makes as well, kind by kind.
fn parts<'a>(difference: &Difference<'a>, whole: &'a Object) -> impl Iterator<Item = &'a Object> {
    let objects = difference.new.objects.values();
    let mut parts: Vec<_> = objects
        .filter(|object| {
            object.owner.as_deref() == Some(&whole.identity) && object.inline_sql.is_some()
        })
        .collect();
    parts.sort_by_key(|part| (part.kind, part.position));
    parts.into_iter()
}

/// A column with what it is made with: `NOT NULL`, a default.
fn with_properties(difference: &Difference<'_>, sql: &str, column: &Object) -> String {
    let properties = parts(difference, column).filter_map(|part| part.inline_sql.as_deref());
    let words: Vec<_> = std::iter::once(sql).chain(properties).collect();
    words.join(" ")
}

fn table_sql(difference: &Difference<'_>, table: &Object) -> String {
    let mut lines = Vec::new();
    let mut parameters = Vec::new();
    for part in parts(difference, table) {
        let sql = part.inline_sql.as_deref().unwrap_or_default();
        match part.kind {
            Kind::StorageParameter => parameters.push(sql),
            Kind::Column => lines.push(with_properties(difference, sql, part)),
            _ => lines.push(sql.to_owned()),
        }
    }
    let mut sql = format!("{} (\n    {}\n)", table.create_sql, lines.join(",\n    "));
    if !parameters.is_empty() {
        sql += &format!(" WITH ({})", parameters.join(", "));
    }
    sql
}
