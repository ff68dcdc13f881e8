//! How a column is read from a row of SQLite. What stands in which: [`crate::columns`].

use rusqlite::types::Type;
use rusqlite::{Error, Row};

use crate::columns::{self, Columns};
use crate::objects::{Branch, Choice, Generation, Invite, Member, Story, Turn};

pub(super) use crate::columns::{
    BRANCH, CHOICE, GENERATION, INVITE, MEMBER, STORY, TURN, author_word, count, kind_word, parsed, parsed_or_null,
};

impl Columns for Row<'_> {
    type Error = Error;

    fn text(&self, column: usize) -> Result<&str, Error> {
        Ok(self.get_ref(column)?.as_str()?)
    }

    fn text_or_null(&self, column: usize) -> Result<Option<&str>, Error> {
        Ok(self.get_ref(column)?.as_str_or_null()?)
    }

    fn integer(&self, column: usize) -> Result<i64, Error> {
        self.get(column)
    }

    fn unreadable(column: usize, what: String) -> Error {
        Error::FromSqlConversionFailure(column, Type::Text, format!("unreadable data: {what}").into())
    }
}

/// A row of SQLite borrows from its statement: what reads it must do so for every length of that, as a function of its own.
macro_rules! of_rows {
    ($($name:ident -> $object:ty;)*) => {
        $(pub(super) fn $name(row: &Row<'_>) -> Result<$object, Error> {
            columns::$name(row)
        })*
    };
}

of_rows! {
    story -> Story;
    member -> Member;
    branch -> Branch;
    turn -> Turn;
    choice -> Choice;
    generation -> Generation;
    invite -> Invite;
}
