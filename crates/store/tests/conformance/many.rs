//! Many nodes on one database.
