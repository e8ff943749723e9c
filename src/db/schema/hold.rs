//! What is written but held back, because running it could lose data.

use std::collections::BTreeMap;

use super::difference::{Difference, Needs};
use super::snapshot::{Kind, Object};

/// The reason of what is held back only because something else is.
const BELONGS: &str = "belongs to what else is held back here";

/// The reason of what would take back something that is held back.
const NOT_DONE: &str = "what it takes back is held back";

/// The statements that are held back, with the reason.
#[derive(Default)]
pub(super) struct Held<'a> {
    pub(super) drops: BTreeMap<&'a str, &'static str>,
    pub(super) builds: BTreeMap<&'a str, &'static str>,
}

impl<'a> Held<'a> {
    /// What could lose data, and what makes no sense without it.
    pub(super) fn of(difference: &Difference<'a>) -> Self {
        let mut held = Self::default();
        let (drops, builds) = (difference.drop_needs(), difference.build_needs());
        for identity in drops.keys() {
            let old = &difference.old.objects[*identity];
            let new = difference.new.objects.get(*identity);
            if let Some(reason) = lost_by_drop(old, new) {
                held.drops.insert(identity, reason);
            }
        }
        for identity in &difference.altered {
            let old = &difference.old.objects[*identity];
            let new = &difference.new.objects[*identity];
            if let Some(reason) = lost_by_alter(old, new) {
                held.builds.insert(identity, reason);
            }
        }
        while held.spread(difference, &drops, &builds) {}
        held
    }

    /// What is not done on the way there need not be undone on the way back, and everything else has to be.
    pub(super) fn on_the_way_back(&self, there: &Difference<'a>, back: &Difference<'a>) -> Self {
        let not_altered = |identity: &&'a str| {
            there.altered.contains(identity) && self.builds.contains_key(identity)
        };
        let not_dropped = |identity: &&'a str| {
            (there.dropped.contains(identity)
                && self.drops.contains_key(there.dropped_with(identity)))
                || not_altered(identity)
        };
        let not_made = |identity: &&'a str| {
            (there.created.contains(identity)
                && self.builds.contains_key(there.made_with(identity)))
                || not_altered(identity)
        };
        let mut held = Self::default();
        for identity in back.dropped.iter().filter(|identity| not_made(identity)) {
            held.drops.insert(back.dropped_with(identity), NOT_DONE);
        }
        let made = back.created.iter().filter(|identity| not_dropped(identity));
        let altered = back.altered.iter();
        let altered = altered.filter(|identity| not_made(identity) || not_dropped(identity));
        for identity in made.chain(altered) {
            held.builds.insert(back.made_with(identity), NOT_DONE);
        }
        held
    }

    /// One round of what follows from what is held back; whether anything did.
    fn spread(
        &mut self,
        difference: &Difference<'a>,
        drops: &Needs<'a>,
        builds: &Needs<'a>,
    ) -> bool {
        let before = self.drops.len() + self.builds.len();
        // What is made with the help of something that is not made yet.
        for (statement, needed) in builds {
            if needed.iter().any(|needed| self.builds.contains_key(needed)) {
                self.builds.entry(statement).or_insert(BELONGS);
            }
        }
        // What is still used.
        for (statement, needed) in drops {
            if self.drops.contains_key(statement) {
                for needed in needed {
                    self.drops.entry(needed).or_insert(BELONGS);
                }
            }
        }
        // What is dropped only to be made again, and the other way round.
        for identity in difference.dropped.intersection(&difference.created) {
            let drop = difference.dropped_with(identity);
            let build = difference.made_with(identity);
            if self.drops.contains_key(drop) {
                self.builds.entry(build).or_insert(BELONGS);
            }
            if self.builds.contains_key(build) {
                self.drops.entry(drop).or_insert(BELONGS);
            }
        }
        self.spread_over_dropped(difference);
        self.drops.len() + self.builds.len() > before
    }

    fn spread_over_dropped(&mut self, difference: &Difference<'a>) {
        for identity in &difference.dropped {
            let object = &difference.old.objects[*identity];
            let drop = difference.dropped_with(identity);
            // The ties of what stays.
            let owner = object.owner.as_deref();
            let owner = owner.and_then(|owner| difference.dropped.get(owner));
            if owner.is_some_and(|owner| self.drops.contains_key(difference.dropped_with(owner))) {
                self.drops.entry(drop).or_insert(BELONGS);
            }
            if !self.drops.contains_key(drop) {
                continue;
            }
            // What it was dropped for, and what needs its place.
            for altered in &difference.altered {
                if object.needs.contains(*altered) {
                    self.builds.entry(altered).or_insert(BELONGS);
                }
            }
            for created in &difference.created {
                if excludes(object, &difference.new.objects[*created]) {
                    self.builds
                        .entry(difference.made_with(created))
                        .or_insert(BELONGS);
                }
            }
        }
    }
}

/// Whether two objects of different identities cannot be there at the same time.
fn excludes(old: &Object, new: &Object) -> bool {
    // Relations of one name.
    let relation = |object: &Object| match object.kind {
        Kind::Table | Kind::View | Kind::Sequence | Kind::Index => object
            .identity
            .split_once(' ')
            .map(|(_, name)| name.to_owned()),
        // A key, which has an index of its name: CONSTRAINT name ON table.
        Kind::Constraint if is_key(&object.definition) => object
            .identity
            .rsplit_once(" ON ")
            .and_then(|(constraint, _)| constraint.split_once(' '))
            .map(|(_, name)| name.to_owned()),
        _ => None,
    };
    match (old.kind, new.kind) {
        (Kind::Identity, Kind::Default) => old.owner == new.owner,
        _ => {
            old.identity != new.identity
                && relation(old).is_some_and(|name| relation(new) == Some(name))
        }
    }
}

fn is_key(constraint: &str) -> bool {
    ["PRIMARY KEY", "UNIQUE", "EXCLUDE"]
        .iter()
        .any(|begin| constraint.starts_with(begin))
}

pub(super) fn lost_by_drop(old: &Object, new: Option<&Object>) -> Option<&'static str> {
    match old.kind {
        Kind::Table => {
            Some("its rows are lost. Was it renamed? Then write ALTER TABLE ... RENAME instead")
        }
        Kind::Column => lost_by_column_drop(old, new),
        Kind::Sequence | Kind::Identity => Some("the number that it has reached is lost"),
        _ => None,
    }
}

/// The values of a generated column are computed from what stays, so they come again or are not wanted.
fn lost_by_column_drop(old: &Object, new: Option<&Object>) -> Option<&'static str> {
    let generated = |object: &Object| !object.signature.is_empty();
    match new {
        None if generated(old) => None,
        None => Some(
            "its values are lost. Was it renamed? Then write ALTER TABLE ... RENAME COLUMN instead",
        ),
        Some(new) if !generated(old) && generated(new) => {
            Some("its stored values are lost; from now on they are computed")
        }
        Some(new) if generated(old) && !generated(new) => Some(
            "its computed values are lost. PostgreSQL 13 and later keep them with ALTER COLUMN ... DROP EXPRESSION",
        ),
        Some(_) if generated(old) => None,
        Some(_) => Some("its values are lost"),
    }
}

fn lost_by_alter(old: &Object, new: &Object) -> Option<&'static str> {
    match new.kind {
        Kind::Table if new.definition == "UNLOGGED" => {
            Some("an unlogged table is emptied by a crash of the server")
        }
        Kind::Column if !keeps_every_value(&old.definition, &new.definition) => {
            Some("the new type may not hold every value; check them and the conversion")
        }
        _ => None,
    }
}

/// Whether every value of one column type is the same value of another one.
fn keeps_every_value(old: &str, new: &str) -> bool {
    let (old, new) = (TypeName::of(old), TypeName::of(new));
    if old == new {
        return true;
    }
    match (old.name, new.name) {
        ("smallint", "integer" | "bigint")
        | ("integer", "bigint")
        | ("real", "double precision") => true,
        ("smallint" | "integer" | "bigint", "numeric") => new.modifiers.is_empty(),
        ("character varying", "text") => true,
        ("text" | "character varying", "character varying") => {
            new.modifiers.is_empty()
                || matches!((&old.modifiers[..], &new.modifiers[..]), ([old], [new]) if old <= new)
        }
        ("numeric", "numeric") => match (&old.modifiers[..], &new.modifiers[..]) {
            (_, []) => true,
            ([old, old_scale], [new, new_scale]) => {
                old_scale <= new_scale && old - old_scale <= new - new_scale
            }
            _ => false,
        },
        _ => false,
    }
}

/// A type as PostgreSQL spells it, without its collation: `numeric(6,4)`.
#[derive(PartialEq)]
struct TypeName<'a> {
    name: &'a str,
    modifiers: Vec<i32>,
}

impl<'a> TypeName<'a> {
    fn of(definition: &'a str) -> Self {
        let spelled = definition.split(" COLLATE ").next().unwrap_or(definition);
        let modified = spelled
            .strip_suffix(')')
            .and_then(|rest| rest.split_once('('))
            .and_then(|(name, numbers)| {
                let numbers: Result<Vec<i32>, _> = numbers.split(',').map(str::parse).collect();
                Some((name, numbers.ok()?))
            });
        match modified {
            Some((name, modifiers)) => Self { name, modifiers },
            None => Self {
                name: spelled,
                modifiers: Vec::new(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wider_types_keep_every_value() {
        let kept = [
            ("integer", "bigint"),
            ("smallint", "numeric"),
            ("real", "double precision"),
            ("numeric(6,4)", "numeric"),
            ("numeric(6,4)", "numeric(8,5)"),
            ("character varying(10)", "character varying(10)"),
            ("character varying(10)", "character varying(20)"),
            ("character varying(10)", "text"),
            ("text", "character varying"),
            ("text", "text COLLATE \"C\""),
        ];
        for (old, new) in kept {
            assert!(keeps_every_value(old, new), "{old} to {new}");
        }
        let lost = [
            ("bigint", "integer"),
            ("integer", "real"),
            ("integer", "numeric(3,0)"),
            ("numeric", "numeric(6,4)"),
            ("numeric(6,4)", "numeric(6,5)"),
            ("numeric(6,4)", "numeric(8,3)"),
            ("character varying(20)", "character varying(10)"),
            ("text", "character varying(10)"),
            ("json", "jsonb"),
            ("timestamp with time zone", "date"),
            ("timestamp(3) with time zone", "timestamp with time zone"),
            ("text", "text[]"),
        ];
        for (old, new) in lost {
            assert!(!keeps_every_value(old, new), "{old} to {new}");
        }
    }
}
