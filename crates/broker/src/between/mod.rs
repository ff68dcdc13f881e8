//! What goes between nodes, whichever server carries it: publications and people as bytes ([`packing`]), orders ([`orders`]), and the way
//! of what was heard to the hub and the server ([`outlets`]). Redis and NATS both use it.

pub(crate) mod orders;
pub(crate) mod outlets;
pub(crate) mod packing;
