//! Sources against real servers, and webhooks against a server that checks them by itself.

#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "rabbitmq")]
mod rabbitmq;
mod redis;
mod webhooks;
mod world;
