//! The errors of the server that something is done about, by the names that PostgreSQL's manual gives them (appendix A).

/// A pooler's word for everything, see [`super::pooler`].
pub const PROTOCOL_VIOLATION: &str = "08P01";
/// A row with this key exists already.
pub const UNIQUE_VIOLATION: &str = "23505";
/// There is no database of this name.
pub const INVALID_CATALOG_NAME: &str = "3D000";
/// Another transaction has changed what this one has read.
pub const SERIALIZATION_FAILURE: &str = "40001";
/// The role may not do this.
pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
/// A lock was not given in time.
pub const LOCK_NOT_AVAILABLE: &str = "55P03";
/// A statement took longer than it may.
pub const QUERY_CANCELED: &str = "57014";

/// Whether the server gave this error.
pub fn is(error: &sqlx::Error, sqlstate: &str) -> bool {
    let given = error.as_database_error().and_then(|error| error.code());
    given.as_deref() == Some(sqlstate)
}
