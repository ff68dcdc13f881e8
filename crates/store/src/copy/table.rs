//! What there is to copy: every table with its columns, the same in every backend. Tests compare the list with the schemas.

/// A table.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) columns: &'static [Column],
    /// The columns by which it is read in order, for a database that has no order of its own.
    pub(crate) order: &'static str,
    /// The column that counts its rows up, if it has one.
    pub(crate) counter: Option<&'static str>,
    /// The step of the schema that made it.
    pub(crate) since: u32,
}

/// A column.
#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Type,
    /// Whether it names an unbroken history.
    pub(crate) is_epoch: bool,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Integer,
    Boolean,
    Text,
    Bytes,
}

/// One value of a row. Booleans are 0 and 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Null,
    Integer(i64),
    Text(String),
    Bytes(Vec<u8>),
}

/// One row, in the order of the columns that were announced.
pub(crate) type Row = Vec<Value>;

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&'static Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

const fn integer(name: &'static str) -> Column {
    Column { name, kind: Type::Integer, is_epoch: false }
}

const fn boolean(name: &'static str) -> Column {
    Column { name, kind: Type::Boolean, is_epoch: false }
}

const fn text(name: &'static str) -> Column {
    Column { name, kind: Type::Text, is_epoch: false }
}

const fn bytes(name: &'static str) -> Column {
    Column { name, kind: Type::Bytes, is_epoch: false }
}

const fn epoch(name: &'static str) -> Column {
    Column { name, kind: Type::Text, is_epoch: true }
}

const fn counted(name: &'static str, columns: &'static [Column]) -> Table {
    Table { name, columns, order: "seq", counter: Some("seq"), since: 1 }
}

/// All tables, in the order in which they are copied.
pub(crate) static TABLES: &[Table] = &[
    Table {
        name: "channels",
        order: "id",
        counter: Some("id"),
        since: 1,
        columns: &[
            integer("id"),
            text("name"),
            epoch("epoch"),
            integer("top"),
            integer("version"),
            text("version_epoch"),
        ],
    },
    Table {
        name: "log",
        order: "channel, \"offset\"",
        counter: None,
        since: 1,
        columns: &[
            integer("channel"),
            integer("offset"),
            integer("time_ms"),
            bytes("data"),
            text("info"),
            text("tags"),
            text("key_user"),
            text("key"),
        ],
    },
    Table {
        name: "answers",
        order: "id",
        counter: Some("id"),
        since: 1,
        columns: &[integer("id"), text("user"), text("method"), text("key"), bytes("answer"), integer("created_at")],
    },
    counted(
        "stories",
        &[
            integer("seq"),
            text("id"),
            text("title"),
            text("owner"),
            text("branch"),
            integer("created_at"),
            integer("active_at"),
            integer("turns"),
            integer("members"),
        ],
    ),
    counted(
        "members",
        &[integer("seq"), text("story"), text("user"), text("name"), text("role"), integer("joined_at")],
    ),
    counted(
        "branches",
        &[
            integer("seq"),
            text("id"),
            text("story"),
            text("parent"),
            text("from_turn"),
            integer("from_number"),
            text("choice"),
            text("label"),
            integer("created_at"),
        ],
    ),
    counted(
        "turns",
        &[
            integer("seq"),
            text("id"),
            text("story"),
            text("branch"),
            integer("number"),
            text("author_kind"),
            text("author_id"),
            text("author_name"),
            text("kind"),
            text("text"),
            integer("created_at"),
            text("generation"),
            integer("attempt"),
            text("status"),
            text("label"),
        ],
    ),
    counted(
        "choices",
        &[integer("seq"), text("id"), text("story"), text("turn"), integer("number"), text("label"), text("branch")],
    ),
    counted(
        "invites",
        &[
            integer("seq"),
            text("code"),
            text("story"),
            text("role"),
            integer("created_at"),
            integer("expires_at"),
            integer("uses"),
        ],
    ),
    counted(
        "jobs",
        &[
            integer("seq"),
            text("id"),
            text("story"),
            text("branch"),
            text("agent_id"),
            text("agent_name"),
            text("status"),
            integer("attempt"),
            text("by_user"),
            integer("requested_at"),
            text("after_turn"),
            text("reason_code"),
            text("reason_message"),
            text("instruction"),
            boolean("cancel"),
            text("owner"),
            integer("deadline"),
            text("usage"),
            integer("ended_at"),
        ],
    ),
    counted(
        "users",
        &[integer("seq"), text("id"), text("name"), boolean("guest"), integer("created_at"), integer("seen_at")],
    ),
    Table {
        since: 3,
        ..counted("logouts", &[integer("seq"), text("user"), integer("issued_at"), integer("expires_at")])
    },
    Table { since: 4, ..counted("orders", &[integer("seq"), integer("at"), bytes("body")]) },
    Table { name: "secrets", order: "name", counter: None, since: 1, columns: &[text("name"), bytes("value")] },
];
