//! How a column is read from a row of PostgreSQL. What stands in which: [`crate::columns`].

use tokio_postgres::Row;

use super::failure::Failure;
use crate::StoreError;
use crate::columns::Columns;

pub(super) use crate::columns::{
    BRANCH, CHOICE, GENERATION, INVITE, MEMBER, STORY, TURN, author_word, branch, choice, count, generation, invite,
    kind_word, member, parsed, parsed_or_null, story, turn,
};

impl Columns for Row {
    type Error = Failure;

    fn text(&self, column: usize) -> Result<&str, Failure> {
        Ok(self.try_get(column)?)
    }

    fn text_or_null(&self, column: usize) -> Result<Option<&str>, Failure> {
        Ok(self.try_get(column)?)
    }

    fn integer(&self, column: usize) -> Result<i64, Failure> {
        Ok(self.try_get(column)?)
    }

    fn unreadable(_: usize, what: String) -> Failure {
        StoreError::Broken(format!("unreadable data: {what}")).into()
    }
}
