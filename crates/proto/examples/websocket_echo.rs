//! Sends back every WebSocket message, for the protocol suite that `cargo xtask autobahn` runs: our handshake's extension,
//! reader and writer on a real socket, one connection after the other. The argument is the address to listen at.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use talewire_proto::compression::Compression;
use talewire_proto::websocket::{Event, Reader, Scratch, agree};
use talewire_proto::wire::{Wire, websocket_close};

/// The suite's largest messages, of the cases that are run.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A suite that goes away without a word does not hold up its next case.
const READ_DEADLINE: Duration = Duration::from_secs(30);

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(address)?;
    println!("{}", listener.local_addr()?);
    for socket in listener.incoming() {
        // A case may end its connection in any way; the next one is served all the same.
        if let Err(error) = socket.and_then(echo) {
            eprintln!("a connection ended: {error}");
        }
    }
    Ok(())
}

fn echo(mut socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(READ_DEADLINE))?;
    let mut input = BufReader::new(socket.try_clone()?);
    let (mut key, mut offers) = (String::new(), Vec::new());
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-key") => value.clone_into(&mut key),
            Some((name, value)) if name.eq_ignore_ascii_case("sec-websocket-extensions") => {
                offers.push(value.to_owned())
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let deflate = agree(offers.iter().map(String::as_str));
    let (text, binary) = deflate.as_ref().map_or((Wire::WebSocketJson, Wire::WebSocketProtobuf), |deflate| {
        (Wire::WebSocketJsonDeflate(deflate.window), Wire::WebSocketProtobufDeflate(deflate.window))
    });
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let extension = deflate
        .as_ref()
        .map(|deflate| format!("Sec-WebSocket-Extensions: {}\r\n", deflate.answer()))
        .unwrap_or_default();
    write!(
        socket,
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{extension}\r\n"
    )?;
    let compression = Compression::new(0, usize::MAX);
    let mut reader = Reader::new(MESSAGE_BYTES_MAX, deflate.is_some());
    let (mut scratch, mut bytes, mut ends) = (Scratch::default(), vec![0; 65_536], false);
    while !ends {
        let n = input.read(&mut bytes)?;
        if n == 0 {
            return Ok(());
        }
        let (mut answers, mut echoes, mut last) = (Vec::new(), Vec::new(), None);
        reader.feed(&bytes[..n], 0, &mut scratch, &mut answers, |event| match event {
            Event::Text(message) => echoes.extend_from_slice(&text.pack(message.as_bytes(), &compression)),
            Event::Binary(message) => echoes.extend_from_slice(&binary.pack(message, &compression)),
            Event::Close => ends = true,
            Event::Violation(code) => last = Some(websocket_close(code, "")),
        });
        // Pongs come before the message that they interrupted, but what was whole before a close is still sent back.
        let (first, second) = if ends { (echoes, answers) } else { (answers, echoes) };
        socket.write_all(&first)?;
        socket.write_all(&second)?;
        if let Some(close) = last {
            socket.write_all(&close)?;
            ends = true;
        }
    }
    socket.shutdown(Shutdown::Write)?;
    while input.read(&mut bytes)? > 0 {}
    Ok(())
}
