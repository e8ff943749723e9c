//! What a schema consists of, read from PostgreSQL's own catalogs and in its own words.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::postgres::PgConnection;
use sqlx::{Connection, FromRow};

/// The kinds of objects, in the order in which they are made where nothing else decides.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Compared, but not written: types, materialized views, policies and the like.
    #[default]
    Other,
    Sequence,
    Function,
    Table,
    StorageParameter,
    Column,
    NotNull,
    Default,
    Identity,
    SequenceTie,
    Constraint,
    Index,
    View,
    Trigger,
    Comment,
}

/// One query of the catalogs for each kind.
const CATALOG: [(Kind, &str); 14] = [
    (Kind::Other, include_str!("catalog/others.sql")),
    (Kind::Sequence, include_str!("catalog/sequences.sql")),
    (Kind::Function, include_str!("catalog/functions.sql")),
    (Kind::Table, include_str!("catalog/tables.sql")),
    (
        Kind::StorageParameter,
        include_str!("catalog/storage_parameters.sql"),
    ),
    (Kind::Column, include_str!("catalog/columns.sql")),
    (Kind::NotNull, include_str!("catalog/not_nulls.sql")),
    (Kind::Default, include_str!("catalog/defaults.sql")),
    (Kind::Identity, include_str!("catalog/identities.sql")),
    (Kind::SequenceTie, include_str!("catalog/sequence_ties.sql")),
    (Kind::Constraint, include_str!("catalog/constraints.sql")),
    (Kind::Index, include_str!("catalog/indexes.sql")),
    (Kind::View, include_str!("catalog/views.sql")),
    (Kind::Trigger, include_str!("catalog/triggers.sql")),
];

/// The smallest thing that is made and dropped by one statement: a table without its columns, a
/// column without its default, a default, a comment.
#[derive(Debug, Clone, FromRow)]
pub(super) struct Object {
    /// Its name with its kind, as `COMMENT ON` wants it.
    pub(super) identity: String,
    #[sqlx(skip)]
    pub(super) kind: Kind,
    /// The object that it is a part of and is dropped with.
    #[sqlx(default)]
    pub(super) owner: Option<String>,
    /// Where a column stands in its table; only for the eye.
    #[sqlx(default)]
    pub(super) position: i32,
    /// What makes it equal to another one of the same identity.
    pub(super) definition: String,
    /// What no statement alters: where it differs, the object is dropped and made again.
    #[sqlx(default)]
    pub(super) signature: String,
    /// Its part of the statement that makes its owner, where it can be one.
    #[sqlx(default)]
    pub(super) inline_sql: Option<String>,
    #[sqlx(default)]
    pub(super) create_sql: String,
    /// Turns another one of the same identity and signature into this one, where that is possible.
    #[sqlx(default)]
    pub(super) alter_sql: Option<String>,
    #[sqlx(default)]
    pub(super) drop_sql: String,
    /// Under which catalog addresses others refer to it.
    #[sqlx(default)]
    addresses: Vec<String>,
    /// Whom it needs, its owner included.
    #[sqlx(skip)]
    pub(super) needs: BTreeSet<String>,
}

#[derive(FromRow)]
struct Comment {
    address: String,
    part: Option<String>,
    position: i32,
    literal: String,
}

/// The schema `public` of a database, without the migrator's own table and without what extensions
/// brought.
///
/// The order of columns does not count. Owners, privileges, and how columns are stored and sampled are
/// not part of it.
#[derive(Debug, Clone)]
pub struct Snapshot {
    pub(super) objects: BTreeMap<String, Object>,
}

impl Snapshot {
    /// The objects that differ, a line for each; empty if the schemas are equal.
    pub fn difference(&self, other: &Self) -> Vec<String> {
        let identities: BTreeSet<_> = self.objects.keys().chain(other.objects.keys()).collect();
        let pairs = identities
            .into_iter()
            .map(|identity| (self.objects.get(identity), other.objects.get(identity)));
        pairs
            .filter_map(|pair| match pair {
                (Some(left), Some(right)) if left.same_as(right) => None,
                (Some(left), Some(right)) => Some(format!(
                    "{}: {} {} <> {} {}",
                    left.identity,
                    left.definition,
                    left.signature,
                    right.definition,
                    right.signature
                )),
                (Some(left), None) => Some(format!("{}: only in the first", left.identity)),
                (None, Some(right)) => Some(format!("{}: only in the second", right.identity)),
                (None, None) => None,
            })
            .collect()
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }
}

impl Object {
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.definition == other.definition && self.signature == other.signature
    }
}

/// Reads the schema of a database.
///
/// # Errors
/// What the database says.
pub async fn snapshot(connection: &mut PgConnection) -> sqlx::Result<Snapshot> {
    // PostgreSQL leaves the schema out of the names that it can find without it.
    let mut transaction = connection.begin().await?;
    sqlx::query("SET LOCAL search_path = public")
        .execute(&mut *transaction)
        .await?;
    let mut found = Vec::new();
    for (kind, query) in CATALOG {
        let rows: Vec<Object> = sqlx::query_as(query).fetch_all(&mut *transaction).await?;
        found.extend(rows.into_iter().map(|row| Object { kind, ..row }));
    }
    let comments: Vec<Comment> = sqlx::query_as(include_str!("catalog/comments.sql"))
        .fetch_all(&mut *transaction)
        .await?;
    let dependencies: Vec<(String, String)> =
        sqlx::query_as(include_str!("catalog/dependencies.sql"))
            .fetch_all(&mut *transaction)
            .await?;
    transaction.rollback().await?;
    Ok(assemble(found, comments, &dependencies))
}

/// Puts together what the queries found: comments to their objects, needs by name.
fn assemble(
    found: Vec<Object>,
    comments: Vec<Comment>,
    dependencies: &[(String, String)],
) -> Snapshot {
    let mut at_address = BTreeMap::new();
    for object in &found {
        for address in &object.addresses {
            at_address.insert(address.clone(), object.identity.clone());
        }
    }
    let mut objects: BTreeMap<_, _> = found
        .into_iter()
        .map(|object| (object.identity.clone(), object))
        .collect();
    for comment in comments {
        if let Some(owner) = at_address.get(&comment.address) {
            let object = comment.on(owner);
            objects.insert(object.identity.clone(), object);
        }
    }
    drop_orphans(&mut objects);
    for (dependent, needed) in dependencies {
        let pair = at_address.get(dependent).zip(at_address.get(needed));
        if let Some((dependent, needed)) = pair
            && dependent != needed
            && objects.contains_key(needed)
            && let Some(object) = objects.get_mut(dependent)
        {
            object.needs.insert(needed.clone());
        }
    }
    for object in objects.values_mut() {
        object.needs.extend(object.owner.clone());
    }
    Snapshot { objects }
}

/// Forgets the parts of what no query named: the columns of the migrator's table, and of tables that
/// are not plain ones.
fn drop_orphans(objects: &mut BTreeMap<String, Object>) {
    loop {
        let known: BTreeSet<_> = objects.keys().cloned().collect();
        objects.retain(|_, object| {
            object
                .owner
                .as_ref()
                .is_none_or(|owner| known.contains(owner))
        });
        if objects.len() == known.len() {
            return;
        }
    }
}

impl Comment {
    fn on(self, owner: &str) -> Object {
        let target = self.part.as_deref().unwrap_or(owner);
        let create_sql = format!("COMMENT ON {target} IS {}", self.literal);
        Object {
            identity: format!("COMMENT ON {target}"),
            kind: Kind::Comment,
            owner: Some(owner.to_owned()),
            position: self.position,
            definition: self.literal,
            signature: String::new(),
            inline_sql: None,
            alter_sql: Some(create_sql.clone()),
            drop_sql: format!("COMMENT ON {target} IS NULL"),
            create_sql,
            addresses: Vec::new(),
            needs: BTreeSet::new(),
        }
    }
}
