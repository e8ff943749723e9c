//! From one schema to another: what is dropped, altered and made, and in which order.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::{Kind, Object, Snapshot};

/// What has to happen, by identity.
pub(super) struct Difference<'a> {
    pub(super) old: &'a Snapshot,
    pub(super) new: &'a Snapshot,
    pub(super) dropped: BTreeSet<&'a str>,
    pub(super) altered: BTreeSet<&'a str>,
    pub(super) created: BTreeSet<&'a str>,
}

/// Which statement has to come after which other ones.
pub(super) type Needs<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

impl<'a> Difference<'a> {
    pub(super) fn between(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let mut dropped = BTreeSet::new();
        let mut altered = BTreeSet::new();
        for (identity, object) in written(old) {
            match new.objects.get(identity) {
                Some(wanted) if wanted.same_as(object) => {}
                Some(wanted) if can_alter(object, wanted) => {
                    altered.insert(identity);
                }
                _ => {
                    dropped.insert(identity);
                }
            }
        }
        drop_dependents(old, &mut dropped, &mut altered);
        let created = written(new)
            .map(|(identity, _)| identity)
            .filter(|identity| !old.objects.contains_key(*identity) || dropped.contains(identity))
            .collect();
        Self {
            old,
            new,
            dropped,
            altered,
            created,
        }
    }

    /// The object whose statement drops this one as well.
    pub(super) fn dropped_with(&self, identity: &'a str) -> &'a str {
        let object = &self.old.objects[identity];
        match object.owner.as_deref() {
            Some(owner) if self.dropped.contains(owner) && !needs_own_drop(object) => {
                self.dropped_with(owner)
            }
            _ => identity,
        }
    }

    /// The object whose statement makes this one as well.
    pub(super) fn made_with(&self, identity: &'a str) -> &'a str {
        let object = &self.new.objects[identity];
        match object.owner.as_deref() {
            Some(owner) if self.created.contains(owner) && object.inline_sql.is_some() => {
                self.made_with(owner)
            }
            _ => identity,
        }
    }

    /// The statements that drop, each with those that have to come after it.
    pub(super) fn drop_needs(&self) -> Needs<'a> {
        statements(self.old, self.dropped.iter().copied(), |identity| {
            self.dropped_with(identity)
        })
    }

    /// The statements that alter and make, each with those that have to come before it.
    pub(super) fn build_needs(&self) -> Needs<'a> {
        let built = self.created.iter().chain(&self.altered).copied();
        statements(self.new, built, |identity| self.made_with(identity))
    }
}

fn written(snapshot: &Snapshot) -> impl Iterator<Item = (&str, &Object)> {
    let objects = snapshot.objects.iter();
    objects
        .filter(|(_, object)| object.kind != Kind::Other)
        .map(|(identity, object)| (identity.as_str(), object))
}

fn can_alter(old: &Object, new: &Object) -> bool {
    // A view may get more columns at its end.
    let longer =
        || new.kind == Kind::View && new.signature.starts_with(&format!("{}, ", old.signature));
    new.alter_sql.is_some() && (new.signature == old.signature || longer())
}

/// Foreign keys tie tables to each other, and a sequence to its column, both ways: only untied can one
/// of them go before the other.
fn needs_own_drop(object: &Object) -> bool {
    match object.kind {
        Kind::SequenceTie => true,
        Kind::Constraint => object.inline_sql.is_none(),
        _ => false,
    }
}

/// What uses a dropped object goes as well, and comes again if it is wanted.
fn drop_dependents<'a>(
    old: &'a Snapshot,
    dropped: &mut BTreeSet<&'a str>,
    altered: &mut BTreeSet<&'a str>,
) {
    let mut dependents: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for (_, object) in written(old) {
        for needed in &object.needs {
            dependents.entry(needed).or_default().push(object);
        }
    }
    let of = |identity: &str| dependents.get(identity).into_iter().flatten().copied();
    for identity in altered.iter() {
        let kind = old.objects[*identity].kind;
        let affected = of(identity).filter(|dependent| does_not_survive(kind, dependent));
        dropped.extend(affected.map(|dependent| dependent.identity.as_str()));
    }
    let mut queue: Vec<_> = dropped.iter().copied().collect();
    while let Some(identity) = queue.pop() {
        altered.remove(identity);
        for dependent in of(identity) {
            if dropped.insert(&dependent.identity) {
                queue.push(&dependent.identity);
            }
        }
    }
}

/// Whether an object has to be made again when what it uses is altered in place.
fn does_not_survive(altered: Kind, dependent: &Object) -> bool {
    match altered {
        // Another type: views refuse it, and expressions would keep the casts of the old one.
        Kind::Column => !matches!(
            dependent.kind,
            Kind::NotNull | Kind::Identity | Kind::Comment
        ),
        // Another result: what has stored or checked the old one has to be computed again.
        Kind::Function => matches!(
            dependent.kind,
            Kind::Index | Kind::Constraint | Kind::Column
        ),
        _ => false,
    }
}

/// Groups objects by the statement that they are part of, with what these statements need.
fn statements<'a>(
    snapshot: &'a Snapshot,
    identities: impl Iterator<Item = &'a str>,
    statement_of: impl Fn(&'a str) -> &'a str,
) -> Needs<'a> {
    let identities: BTreeSet<_> = identities.collect();
    let mut needs = Needs::new();
    for identity in &identities {
        let statement = statement_of(identity);
        let needed = snapshot.objects[*identity].needs.iter();
        let needed = needed
            .filter_map(|needed| identities.get(needed.as_str()))
            .map(|needed| statement_of(needed))
            .filter(|needed| *needed != statement);
        needs.entry(statement).or_default().extend(needed);
    }
    needs
}

/// Puts statements into an order in which each comes after those that it needs; kind by kind and table
/// by table as far as that leaves it open. In a circle, which plain DDL cannot write, that decides.
pub(super) fn in_order<'a>(snapshot: &'a Snapshot, needs: &Needs<'a>) -> Vec<&'a str> {
    let mut waiting: Vec<_> = needs.keys().copied().collect();
    waiting.sort_by_cached_key(|identity| place(snapshot, identity));
    let mut ordered = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let ready = waiting.iter().position(|identity| {
            needs[identity]
                .iter()
                .all(|needed| !waiting.contains(needed))
        });
        ordered.push(waiting.remove(ready.unwrap_or(0)));
    }
    ordered
}

/// Where an object stands by itself: its kind, what it belongs to in the end, its place there.
fn place<'a>(snapshot: &'a Snapshot, identity: &'a str) -> (Kind, &'a str, i32, &'a str) {
    let object = &snapshot.objects[identity];
    let mut root = object;
    while let Some(owner) = root
        .owner
        .as_deref()
        .and_then(|owner| snapshot.objects.get(owner))
    {
        root = owner;
    }
    (object.kind, &root.identity, object.position, identity)
}
