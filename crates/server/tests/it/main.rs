//! A whole server on real sockets, port 0, one data folder per test.

mod apart;
mod api;
mod app_channels;
mod compression;
mod http;
mod http2;
mod keep_alive;
mod leaving;
mod logouts;
mod namespaces;
mod nodes;
mod readers;
mod seen;
mod sockets;
mod stage;
mod websocket;
