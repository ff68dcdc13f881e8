//! One connection of the native protocol over WebSocket that never blocks for long: commands in, answers and pushes out. Used by
//! every client of a run that speaks it.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use talewire_load::client::{Handshake, closed};
use talewire_load::frame::{self, FrameReader};

use crate::http::{self, Trouble};

/// An open connection.
#[derive(Debug)]
pub struct Socket {
    socket: TcpStream,
    frames: FrameReader,
    lines: VecDeque<Value>,
    /// How the server ended it.
    ended: Option<String>,
    /// When anything came last.
    heard: Instant,
    id: u32,
}

impl Socket {
    /// Opens one.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn open(server: SocketAddr, patience: Duration) -> Result<Self, Trouble> {
        let mut socket = http::dial(server, patience)?;
        let deadline = Instant::now() + patience;
        let unknown = |error: std::io::Error| Trouble::Unknown(error.to_string());
        socket.set_write_timeout(Some(patience)).map_err(unknown)?;
        let handshake = Handshake::default();
        socket.write_all(&handshake.request(server)).map_err(unknown)?;
        let mut head = Vec::new();
        let used = loop {
            let read = http::read_some(&mut socket, &mut head).map_err(unknown)?;
            if let Some(used) = handshake.answer(&head).map_err(Trouble::Unknown)? {
                break used;
            }
            if read == Some(0) || Instant::now() > deadline {
                return Err(Trouble::Unknown("the handshake was not answered".to_owned()));
            }
        };
        let mut opened = Self {
            socket,
            frames: FrameReader::default(),
            lines: VecDeque::new(),
            ended: None,
            heard: Instant::now(),
            id: 0,
        };
        opened.take_in(&head[used..])?;
        Ok(opened)
    }

    /// Says who we are.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn connect(&mut self, token: &str, patience: Duration) -> Result<Value, Trouble> {
        self.call("connect", json!({ "token": token, "name": "faults" }), patience)
    }

    /// Says a command and waits for its answer. What comes unasked meanwhile is kept, in its order.
    ///
    /// # Errors
    /// [`Trouble`].
    pub fn call(&mut self, method: &str, params: Value, patience: Duration) -> Result<Value, Trouble> {
        self.id += 1;
        let id = Value::from(self.id);
        self.send(frame::TEXT, json!({ "id": id, method: params }).to_string().as_bytes())?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(place) = self.lines.iter().position(|line| line.get("id") == Some(&id)) {
                let mut line = self.lines.remove(place).unwrap_or_default();
                if let Some(error) = line.get("error") {
                    let message = error["message"].as_str().unwrap_or_default();
                    return Err(Trouble::refusal(error["code"].as_u64().unwrap_or(0), message));
                }
                return Ok(line[method].take());
            }
            if Instant::now() > deadline {
                return Err(Trouble::Unknown(format!("no answer to {method} within {} ms", patience.as_millis())));
            }
            self.wait()?;
        }
    }

    /// The next thing that came unasked, or nothing if nothing came soon.
    ///
    /// # Errors
    /// [`Trouble`], once the connection has ended and all that came before was taken.
    pub fn next_push(&mut self) -> Result<Option<Value>, Trouble> {
        loop {
            match self.lines.pop_front() {
                Some(mut line) if line.get("push").is_some() => return Ok(Some(line["push"].take())),
                // An answer for which nobody waits any more.
                Some(_) => {}
                None if self.wait()? == 0 => return Ok(None),
                None => {}
            }
        }
    }

    /// For how long nothing has come, no ping either.
    #[must_use]
    pub fn silence(&self) -> Duration {
        self.heard.elapsed()
    }

    /// Says goodbye.
    pub fn close(mut self) {
        // Whoever is gone already needs no goodbye.
        let _ = self.send(frame::CLOSE, &1_000_u16.to_be_bytes());
    }

    fn wait(&mut self) -> Result<usize, Trouble> {
        if let Some(how) = &self.ended {
            return Err(Trouble::Unknown(how.clone()));
        }
        let mut bytes = Vec::new();
        match http::read_some(&mut self.socket, &mut bytes) {
            Ok(Some(0)) => Err(Trouble::Unknown("closed without a word".to_owned())),
            Ok(Some(_)) => {
                self.heard = Instant::now();
                self.take_in(&bytes)?;
                Ok(bytes.len())
            }
            Ok(None) => Ok(0),
            Err(error) => Err(Trouble::Unknown(error.to_string())),
        }
    }

    fn take_in(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        let mut frames = Vec::new();
        let fed = self.frames.feed(bytes, |frame| frames.push((frame.opcode, frame.payload.to_vec())));
        fed.map_err(|error| Trouble::Unknown(error.to_string()))?;
        for (opcode, payload) in frames {
            match opcode {
                frame::TEXT => self.take_lines(&payload)?,
                frame::PING => self.send(frame::PONG, &payload)?,
                frame::CLOSE => {
                    let (code, reason) = closed(&payload);
                    self.ended = Some(format!("closed: {code} {reason}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_lines(&mut self, text: &[u8]) -> Result<(), Trouble> {
        for line in serde_json::Deserializer::from_slice(text).into_iter::<Value>() {
            let line = line.map_err(|error| Trouble::Unknown(error.to_string()))?;
            if line.as_object().is_some_and(serde_json::Map::is_empty) {
                self.send(frame::TEXT, b"{}")?;
            } else {
                self.lines.push_back(line);
            }
        }
        Ok(())
    }

    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), Trouble> {
        let mut bytes = Vec::new();
        frame::write(opcode, payload, fastrand::u32(..).to_be_bytes(), &mut bytes);
        self.socket.write_all(&bytes).map_err(|error| Trouble::Unknown(error.to_string()))
    }
}
