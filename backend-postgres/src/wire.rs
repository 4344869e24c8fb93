//! Values on their way to and from the server.

use std::error::Error as StdError;

use bytes::{BufMut, Bytes, BytesMut};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::error::{Fault, Outcome};

/// A parameter of a statement, with its type: named, so that the server need not be asked.
pub(crate) type Param = (Box<dyn ToSql + Sync + Send>, Type);

type Failure = Box<dyn StdError + Sync + Send>;

/// 16 bytes, as Postgres's `uuid`: of fixed length, and compared as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) [u8; 16]);

impl ToSql for Id {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }

    to_sql_checked!();
}

impl FromSql<'_> for Id {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Failure> {
        Ok(Self(raw.try_into()?))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::UUID
    }
}

/// Bytes that are shared, not copied, on their way out.
#[derive(Clone, Debug)]
pub(crate) struct Blob(pub(crate) Bytes);

impl ToSql for Blob {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Failure> {
        out.put_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA
    }

    to_sql_checked!();
}

impl FromSql<'_> for Blob {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Failure> {
        Ok(Self(Bytes::copy_from_slice(raw)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::BYTEA
    }
}

/// The number as the server keeps it. Nothing that exists is above 2^63: what is asked for beyond that means "all".
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(crate) fn bigint(number: u64) -> Param {
    (Box::new(int(number)), Type::INT8)
}

/// A number that is only ever compared with itself: each has one of its own, also above 2^63.
pub(crate) fn tag(number: u64) -> Param {
    (Box::new(number.cast_signed()), Type::INT8)
}

pub(crate) fn maybe_bigint(number: Option<u64>) -> Param {
    (Box::new(number.map(int)), Type::INT8)
}

pub(crate) fn count(number: usize) -> Param {
    bigint(number as u64)
}

pub(crate) fn bigints(numbers: impl IntoIterator<Item = u64>) -> Param {
    (Box::new(numbers.into_iter().map(int).collect::<Vec<i64>>()), Type::INT8_ARRAY)
}

pub(crate) fn maybe_bigints(numbers: impl IntoIterator<Item = Option<u64>>) -> Param {
    (Box::new(numbers.into_iter().map(|n| n.map(int)).collect::<Vec<Option<i64>>>()), Type::INT8_ARRAY)
}

pub(crate) fn smallints(numbers: impl IntoIterator<Item = i16>) -> Param {
    (Box::new(numbers.into_iter().collect::<Vec<i16>>()), Type::INT2_ARRAY)
}

pub(crate) fn boolean(value: bool) -> Param {
    (Box::new(value), Type::BOOL)
}

pub(crate) fn booleans(values: impl IntoIterator<Item = bool>) -> Param {
    (Box::new(values.into_iter().collect::<Vec<bool>>()), Type::BOOL_ARRAY)
}

pub(crate) fn text(value: impl Into<String>) -> Param {
    (Box::new(value.into()), Type::TEXT)
}

pub(crate) fn id(value: [u8; 16]) -> Param {
    (Box::new(Id(value)), Type::UUID)
}

pub(crate) fn maybe_id(value: Option<[u8; 16]>) -> Param {
    (Box::new(value.map(Id)), Type::UUID)
}

pub(crate) fn ids(values: impl IntoIterator<Item = [u8; 16]>) -> Param {
    (Box::new(values.into_iter().map(Id).collect::<Vec<Id>>()), Type::UUID_ARRAY)
}

pub(crate) fn blob(value: Bytes) -> Param {
    (Box::new(Blob(value)), Type::BYTEA)
}

pub(crate) fn blobs(values: impl IntoIterator<Item = Bytes>) -> Param {
    (Box::new(values.into_iter().map(Blob).collect::<Vec<Blob>>()), Type::BYTEA_ARRAY)
}

/// A column of a row.
pub(crate) fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Outcome<T> {
    row.try_get(index).map_err(Fault::Answer)
}

/// A number that is never negative.
pub(crate) fn number(value: i64) -> Outcome<u64> {
    u64::try_from(value).map_err(|_| Fault::Malformed("a negative number"))
}

/// The numbers of an array column.
#[derive(Debug)]
pub(crate) struct Numbers(Vec<Option<i64>>);

impl Numbers {
    pub(crate) fn of(row: &Row, index: usize) -> Outcome<Self> {
        Ok(Self(column::<Option<Vec<Option<i64>>>>(row, index)?.unwrap_or_default()))
    }

    /// The number at a place, counted from 0.
    pub(crate) fn at(&self, place: usize) -> Outcome<u64> {
        self.maybe(place)?.ok_or(Fault::Malformed("a number is missing"))
    }

    pub(crate) fn maybe(&self, place: usize) -> Outcome<Option<u64>> {
        self.0.get(place).copied().flatten().map(number).transpose()
    }
}
