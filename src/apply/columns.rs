//! A parameter of a statement that stands for a column of many rows.

use std::marker::PhantomData;

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

/// An array in the form in which it is sent: every value is encoded where it is found, with no vector of
/// options in between.
pub(super) struct Column<T> {
    values: PgArgumentBuffer,
    rows: i32,
    failure: Option<BoxDynError>,
    of: PhantomData<T>,
}

impl<T> Default for Column<T> {
    fn default() -> Self {
        Self {
            values: PgArgumentBuffer::default(),
            rows: 0,
            failure: None,
            of: PhantomData,
        }
    }
}

impl<T> Column<T> {
    /// Whether it has no row.
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }
}

impl<'q, T: Encode<'q, Postgres>> Column<T> {
    /// Adds the value of one more row. A failure shows when the statement is run.
    pub(super) fn push(&mut self, value: impl Into<Option<T>>) {
        const NULL: i32 = -1;
        let start = self.values.len();
        self.rows += 1;
        self.values.extend_from_slice(&NULL.to_be_bytes());
        let Some(value) = value.into() else {
            return;
        };
        let encoded = value.encode(&mut self.values);
        let length = i32::try_from(self.values.len() - start - size_of::<i32>());
        match (encoded, length) {
            (Ok(IsNull::No), Ok(length)) => {
                self.values[start..start + size_of::<i32>()].copy_from_slice(&length.to_be_bytes());
            }
            (Ok(IsNull::Yes), _) => {}
            (Err(error), _) => self.failure = Some(error),
            (_, Err(error)) => self.failure = Some(error.into()),
        }
    }
}

impl<T: PgHasArrayType> Type<Postgres> for Column<T> {
    fn type_info() -> PgTypeInfo {
        T::array_type_info()
    }
}

impl<T: Type<Postgres>> Encode<'_, Postgres> for Column<T> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        if let Some(failure) = &self.failure {
            return Err(failure.to_string().into());
        }
        let element = T::type_info()
            .oid()
            .ok_or("a type without a fixed number")?;
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
}
