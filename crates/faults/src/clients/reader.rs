//! Somebody who reads over the native protocol: subscribed to some channels for the whole run, from connection to connection, each
//! time from where they stood. They keep their position as the official clients do.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{PATIENCE, SILENCE_MAX, Way, World, pause};
use crate::http::Trouble;
use crate::log::{Name, Position, Told, What};
use crate::payload;
use crate::socket::Socket;

/// Who reads what.
#[derive(Debug, Clone)]
pub struct Reader {
    /// Of this reader alone.
    pub number: u32,
    /// All of them on one connection.
    pub channels: Vec<Name>,
    /// Says who it is.
    pub token: String,
    /// Through proxies or not.
    pub way: Way,
    /// For everything that is random about it.
    pub seed: u64,
    /// Channels that are never subscribed again once the server has ended them.
    pub given_up: Vec<Name>,
}

struct Reading<'a> {
    reader: Reader,
    world: &'a World,
    rng: fastrand::Rng,
    stands: BTreeMap<Name, Position>,
}

impl Reader {
    /// Reads until everything is over.
    pub fn run(self, world: &Arc<World>) {
        let (number, channels) = (self.number, self.channels.clone());
        world.log.say(What::Reader { reader: number, wire: "websocket".to_owned(), channels });
        let rng = fastrand::Rng::with_seed(self.seed);
        let mut reading = Reading { reader: self, world, rng, stands: BTreeMap::new() };
        while !world.is_over() {
            if let Err(trouble) = reading.connection() {
                world.log.say(What::Broke { reader: number, why: trouble.to_string() });
            }
            world.roster.lock().retain(|(reader, _), _| *reader != number);
            pause(&mut reading.rng);
        }
    }
}

impl Reading<'_> {
    fn connection(&mut self) -> Result<(), Trouble> {
        let nowhere = || Trouble::NotSent("no node listens yet".to_owned());
        let (node, address) = self.world.pick(&mut self.rng, self.reader.way).ok_or_else(nowhere)?;
        let mut socket = Socket::open(address, PATIENCE)?;
        let connected = socket.connect(&self.reader.token, PATIENCE)?;
        let client: Name = connected["client"].as_str().unwrap_or_default().into();
        for channel in self.reader.channels.clone() {
            if !self.reader.given_up.contains(&channel) || !self.stands.contains_key(&channel) {
                self.subscribe(&mut socket, &node, &channel)?;
                self.world.roster.lock().insert((self.reader.number, channel), client.clone());
            }
        }
        while !self.world.is_over() {
            match socket.next_push()? {
                Some(push) => self.pushed(&mut socket, &node, &client, &push)?,
                None if socket.silence() > SILENCE_MAX => {
                    return Err(Trouble::Unknown("silence, without pings".to_owned()));
                }
                None => {}
            }
        }
        socket.close();
        Ok(())
    }

    fn subscribe(&mut self, socket: &mut Socket, node: &Name, channel: &Name) -> Result<(), Trouble> {
        let from = self.stands.get(channel).cloned();
        let mut params = json!({ "channel": **channel });
        if let Some(Position { epoch, offset }) = &from {
            params["recover"] = true.into();
            params["offset"] = (*offset).into();
            params["epoch"] = Value::from(&**epoch);
        }
        let result = socket.call("subscribe", params, PATIENCE)?;
        let epoch: Name = result["epoch"].as_str().unwrap_or_default().into();
        let top = Position { epoch, offset: result["offset"].as_u64().unwrap_or(0) };
        let told = match (&from, result["recovered"].as_bool()) {
            (None, _) => Told::Fresh,
            (Some(_), Some(true)) => Told::Recovered,
            (Some(_), _) => Told::Lost,
        };
        let stand = match (told, &from) {
            (Told::Recovered, Some(from)) => Position { epoch: top.epoch.clone(), offset: from.offset },
            _ => top.clone(),
        };
        self.stands.insert(channel.clone(), stand);
        let reader = self.reader.number;
        let (node, channel_name) = (node.clone(), channel.clone());
        self.world.log.say(What::Subscribed { reader, channel: channel_name, node, from, told, top });
        if told == Told::Recovered {
            for publication in result["publications"].as_array().into_iter().flatten() {
                self.publication(channel, publication);
            }
        }
        Ok(())
    }

    fn pushed(&mut self, socket: &mut Socket, node: &Name, client: &Name, push: &Value) -> Result<(), Trouble> {
        let channel: Name = push["channel"].as_str().unwrap_or_default().into();
        if let Some(publication) = push.get("pub") {
            self.publication(&channel, publication);
        }
        for (word, is_here) in [("join", true), ("leave", false)] {
            if let Some(of) = push[word]["info"]["client"].as_str() {
                let (reader, client) = (self.reader.number, of.into());
                self.world.log.say(What::Came { reader, channel: channel.clone(), client, is_here });
            }
        }
        if push.get("unsubscribe").is_some() {
            let code = push["unsubscribe"]["code"].as_u64().unwrap_or(0);
            self.world.roster.lock().remove(&(self.reader.number, channel.clone()));
            if code >= 2_500 {
                self.subscribe(socket, node, &channel)?;
                self.world.roster.lock().insert((self.reader.number, channel), client.clone());
            }
        }
        if let Some(disconnect) = push.get("disconnect") {
            return Err(Trouble::Unknown(format!("told to leave: {disconnect}")));
        }
        Ok(())
    }

    fn publication(&mut self, channel: &Name, publication: &Value) {
        let offset = publication["offset"].as_u64().unwrap_or(0);
        // Something of a channel that is not ours has no place to stand; the checkers want to see it all the same.
        let stand = self.stands.entry(channel.clone()).or_insert(Position { epoch: "?".into(), offset: 0 });
        stand.offset = stand.offset.max(offset);
        let position = Position { epoch: stand.epoch.clone(), offset };
        let content = payload::content(&publication["data"]);
        self.world.log.say(What::Delivered { reader: self.reader.number, channel: channel.clone(), position, content });
    }
}
