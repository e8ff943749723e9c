//! Rows on their way to the database: an array for each column, or a stream that COPY reads.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgHasArrayType, PgTypeInfo};
use sqlx::query::Query;
use sqlx::{Encode, Postgres, Type};

/// Takes rows, field by field, in the order of a statement's columns. Every value is encoded where it is found.
///
/// A value that cannot be encoded shows when the statement is run.
pub(super) trait Rows {
    /// Begins the next row.
    fn row(&mut self);

    /// Adds the next field of that row.
    fn field<'q, T>(&mut self, value: Option<T>)
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType;
}

/// A column of all rows as a parameter of its own.
#[derive(Default)]
pub(super) struct Arrays {
    columns: Vec<Array>,
    /// The column of the next field.
    next: usize,
}

impl Arrays {
    /// A row for each item, as `put` adds it. `put` has to add every field for `None` too: the columns and their types come from
    /// that, also where there are no items.
    pub(super) fn of<T>(
        items: impl IntoIterator<Item = T>,
        put: impl Fn(Option<T>, &mut Self),
    ) -> Self {
        let mut rows = Self::default();
        put(None, &mut rows);
        for column in &mut rows.columns {
            (column.rows, column.values) = (0, PgArgumentBuffer::default());
        }
        for item in items {
            put(Some(item), &mut rows);
        }
        rows
    }

    /// Binds them in the order of the fields.
    pub(super) fn bind<'q>(
        self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        self.columns.into_iter().fold(query, Query::bind)
    }
}

impl Rows for Arrays {
    fn row(&mut self) {
        self.next = 0;
    }

    fn field<'q, T>(&mut self, value: Option<T>)
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        if self.next == self.columns.len() {
            self.columns.push(Array::of::<T>());
        }
        let column = &mut self.columns[self.next];
        self.next += 1;
        column.rows += 1;
        if let Err(failure) = put(&mut column.values, value) {
            column.failure = Some(failure);
        }
    }
}

/// An array in the form in which it is sent.
struct Array {
    of: PgTypeInfo,
    element: Option<Oid>,
    rows: i32,
    values: PgArgumentBuffer,
    failure: Option<BoxDynError>,
}

impl Array {
    fn of<T: Type<Postgres> + PgHasArrayType>() -> Self {
        Self {
            of: T::array_type_info(),
            element: T::type_info().oid(),
            rows: 0,
            values: PgArgumentBuffer::default(),
            failure: None,
        }
    }
}

impl Type<Postgres> for Array {
    /// Of no array in particular: each tells its own when it is bound.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("anyarray")
    }
}

impl Encode<'_, Postgres> for Array {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if let Some(failure) = &self.failure {
            return Err(failure.to_string().into());
        }
        let element = self.element.ok_or("a type without a fixed number")?;
        let (dimensions, has_null, lower_bound) = (1_i32, 0_i32, 1_i32);
        buffer.reserve(20 + self.values.len());
        buffer.extend_from_slice(&dimensions.to_be_bytes());
        buffer.extend_from_slice(&has_null.to_be_bytes());
        buffer.extend_from_slice(&element.0.to_be_bytes());
        buffer.extend_from_slice(&self.rows.to_be_bytes());
        buffer.extend_from_slice(&lower_bound.to_be_bytes());
        buffer.extend_from_slice(&self.values);
        Ok(IsNull::No)
    }

    fn produces(&self) -> Option<PgTypeInfo> {
        Some(self.of.clone())
    }
}

/// What COPY reads in its binary format.
pub(super) struct CopyStream {
    bytes: PgArgumentBuffer,
    rows: usize,
    /// Where the row begins, with its number of fields.
    row: usize,
    fields: i16,
    failure: Option<BoxDynError>,
}

impl CopyStream {
    /// Signature, flags, and the length of a header extension that is not there.
    const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
    const TRAILER: i16 = -1;
    /// Bytes that are worth a message of their own.
    const PIECE: usize = 64 << 10;

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The rows since the last piece, if they are enough to be sent.
    ///
    /// # Errors
    /// If a value could not be encoded.
    pub(super) fn piece(&mut self) -> sqlx::Result<Option<PgArgumentBuffer>> {
        if let Some(failure) = self.failure.take() {
            return Err(sqlx::Error::Encode(failure));
        }
        if self.bytes.len() < Self::PIECE {
            return Ok(None);
        }
        let mut next = PgArgumentBuffer::default();
        next.reserve(self.bytes.capacity());
        Ok(Some(std::mem::replace(&mut self.bytes, next)))
    }

    /// The rest of the stream.
    ///
    /// # Errors
    /// If a value could not be encoded.
    pub(super) fn finish(mut self) -> sqlx::Result<PgArgumentBuffer> {
        self.bytes.extend_from_slice(&Self::TRAILER.to_be_bytes());
        match self.failure {
            Some(failure) => Err(sqlx::Error::Encode(failure)),
            None => Ok(self.bytes),
        }
    }
}

impl Default for CopyStream {
    fn default() -> Self {
        let mut bytes = PgArgumentBuffer::default();
        bytes.extend_from_slice(Self::HEADER);
        Self {
            bytes,
            rows: 0,
            row: 0,
            fields: 0,
            failure: None,
        }
    }
}

impl Rows for CopyStream {
    fn row(&mut self) {
        self.rows += 1;
        self.row = self.bytes.len();
        self.fields = 0;
        self.bytes.extend_from_slice(&self.fields.to_be_bytes());
    }

    fn field<'q, T>(&mut self, value: Option<T>)
    where
        T: Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        self.fields += 1;
        let count = self.row..self.row + size_of::<i16>();
        self.bytes[count].copy_from_slice(&self.fields.to_be_bytes());
        if let Err(failure) = put(&mut self.bytes, value) {
            self.failure = Some(failure);
        }
    }
}

/// Adds a value with its length before it, which an array and COPY write alike.
fn put<'q, T: Encode<'q, Postgres>>(
    buffer: &mut PgArgumentBuffer,
    value: Option<T>,
) -> Result<(), BoxDynError> {
    const NULL: i32 = -1;
    let start = buffer.len();
    buffer.extend_from_slice(&NULL.to_be_bytes());
    let Some(value) = value else {
        return Ok(());
    };
    if let IsNull::Yes = value.encode(buffer)? {
        return Ok(());
    }
    let length = i32::try_from(buffer.len() - start - size_of::<i32>())?;
    buffer[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
