//! What servers answer, taken apart: a value in, the thing that a script promises out, or an error that says that it was not that.

use bytes::Bytes;
use redis::Value;

use crate::BrokerError;

/// A server answered something that the script does not answer.
pub(crate) fn unknown() -> BrokerError {
    BrokerError::Unavailable("Redis answers in an unknown way".to_owned())
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, BrokerError> {
    match value {
        Value::Array(values) | Value::Set(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        // A map where RESP3 has one.
        Value::Map(pairs) => Ok(pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()),
        _ => Err(unknown()),
    }
}

pub(crate) fn integer(value: &Value) -> Result<i64, BrokerError> {
    match value {
        Value::Int(number) => Ok(*number),
        _ => Err(unknown()),
    }
}

pub(crate) fn bytes(value: Value) -> Result<Bytes, BrokerError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes.into()),
        Value::SimpleString(text) => Ok(text.into_bytes().into()),
        _ => Err(unknown()),
    }
}

pub(crate) fn text(value: Value) -> Result<String, BrokerError> {
    String::from_utf8(bytes(value)?.into()).map_err(|_| unknown())
}

/// A number that a script wrote as text, because scripts lose the last digits of large ones.
pub(crate) fn number(value: Value) -> Result<u64, BrokerError> {
    text(value)?.parse().map_err(|_| unknown())
}
