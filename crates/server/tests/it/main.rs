//! A whole server on real sockets, port 0, one data folder per test.

mod compression;
mod http;
mod namespaces;
mod readers;
mod sockets;
mod stage;
mod websocket;
