//! Sentinels: which server is the master now, and the moment in which another one becomes it.
//!
//! An ordered failover leaves the old master alive: whoever goes on writing there writes what is lost. So we do not wait until the Sentinels have
//! agreed that it is over, but listen for the moment in which one of them has told a replica to take over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value, cmd};
use tokio::sync::Notify;

use super::answers::{list, text};
use super::dial::{Address, Dialer};
use super::link::half_by_chance;

/// What Sentinels publish when a replica has been told to take over, has done so, and is what all are told of.
const EVENTS: [&str; 3] = ["+failover-state-wait-promotion", "+promoted-slave", "+switch-master"];

/// How long a server that was told to take over is tried; if it has not by then, the Sentinels are asked again.
const PROMISED: Duration = Duration::from_millis(3_000);

/// Sentinels that watch one master.
pub(crate) struct Sentinels {
    dialer: Arc<Dialer>,
    master_name: String,
    /// Who is about to be the master, since when.
    promised: Mutex<Option<(Instant, Address)>>,
    /// Where we are connected, or were last.
    current: Mutex<Option<Address>>,
}

/// One server takes the place of another.
#[derive(Debug, PartialEq, Eq)]
struct Promotion {
    old: Address,
    new: Address,
}

impl Sentinels {
    pub(crate) fn new(dialer: Arc<Dialer>, master_name: &str) -> Self {
        Self { dialer, master_name: master_name.to_owned(), promised: Mutex::default(), current: Mutex::default() }
    }

    /// Where the master is: who was told to take over a moment ago, or else what the Sentinel says that has heard of the latest failover. Whoever
    /// connects there still asks the server itself what it is.
    pub(crate) async fn master(&self) -> Result<Address, String> {
        {
            let mut promised = self.promised.lock();
            match &*promised {
                Some((since, address)) if since.elapsed() < PROMISED => return Ok(address.clone()),
                _ => *promised = None,
            }
        }
        let asking = self.dialer.seeds.iter().map(|sentinel| async move {
            let asked = tokio::time::timeout(self.dialer.timeout(), self.ask(sentinel)).await;
            asked.unwrap_or_else(|_| Err(format!("{sentinel}: it does not answer")))
        });
        let answers = futures_util::future::join_all(asking).await;
        let reason = answers.iter().find_map(|answer| answer.as_ref().err().cloned()).unwrap_or_default();
        let latest = answers.into_iter().filter_map(Result::ok).max_by_key(|(failovers, _)| *failovers);
        latest.map(|(_, master)| master).ok_or_else(|| format!("no Sentinel says where the master is: {reason}"))
    }

    /// We are connected there.
    pub(crate) fn connected(&self, address: &Address) {
        *self.current.lock() = Some(address.clone());
    }

    /// What one Sentinel says: how many failovers it has heard of, and where the master is.
    async fn ask(&self, sentinel: &Address) -> Result<(u64, Address), String> {
        let mut connection = self.dialer.dial_sentinel(sentinel, None).await?;
        let mut questions = redis::Pipeline::new();
        questions.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master_name);
        questions.cmd("SENTINEL").arg("MASTER").arg(&self.master_name);
        let said = |error: &dyn std::fmt::Display| format!("{sentinel}: {error}");
        let answers = connection.send_packed_commands(&questions, 0, 2).await.map_err(|error| said(&error))?;
        let mut words = Vec::with_capacity(2);
        for answer in answers {
            let answer = list(answer.extract_error().map_err(|error| said(&error))?).map_err(|error| said(&error))?;
            words.push(answer.into_iter().filter_map(|word| text(word).ok()).collect::<Vec<_>>());
        }
        let [address, master] = &words[..] else { return Err(said(&"it answers in an unknown way")) };
        let [host, port] = &address[..] else {
            return Err(said(&format!("it knows no master of the name {}", self.master_name)));
        };
        let port = port.parse().map_err(|_| said(&"it answers in an unknown way"))?;
        let failovers =
            master.chunks(2).find(|pair| pair[0] == "config-epoch").and_then(|pair| pair.get(1)?.parse().ok());
        Ok((failovers.unwrap_or(0), Address { host: host.clone(), port }))
    }

    /// Listens to all Sentinels, and notifies `moved` when one says that another server becomes the master; until the future is
    /// dropped.
    pub(crate) async fn listen(self: Arc<Self>, moved: Arc<Notify>) {
        let listening = self.dialer.seeds.iter().map(|sentinel| self.listen_to(sentinel, &moved));
        futures_util::future::join_all(listening).await;
    }

    async fn listen_to(self: &Arc<Self>, sentinel: &Address, moved: &Arc<Notify>) {
        loop {
            if let Err(reason) = self.listen_once(sentinel, moved).await {
                tracing::debug!(reason, "a Sentinel is not heard");
            }
            tokio::time::sleep(half_by_chance(Duration::from_millis(1_000))).await;
        }
    }

    async fn listen_once(self: &Arc<Self>, sentinel: &Address, moved: &Arc<Notify>) -> Result<(), String> {
        let pushed = {
            let (sentinels, moved) = (Arc::downgrade(self), moved.clone());
            Box::new(move |info: PushInfo| {
                if let Some(sentinels) = sentinels.upgrade()
                    && let Some(promotion) = sentinels.promotion(info)
                {
                    sentinels.promise(promotion, &moved);
                }
            })
        };
        let mut connection = self.dialer.dial_sentinel(sentinel, Some(pushed)).await?;
        let mut subscribe = cmd("SUBSCRIBE");
        subscribe.arg(&EVENTS);
        connection.send_packed_command(&subscribe).await.map_err(|error| error.to_string())?;
        let (patience, ping) = (self.dialer.timeout(), cmd("PING"));
        loop {
            // A dead connection would say as little as a quiet one.
            tokio::time::sleep(patience).await;
            let pinging = tokio::time::timeout(patience, connection.send_packed_command(&ping));
            match pinging.await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.to_string()),
                Err(_) => return Err(format!("{sentinel}: it does not answer")),
            }
        }
    }

    /// Sentinels tell of a failover until it is over everywhere, long after the next has begun: only what takes the place of where we are
    /// is news.
    fn promise(&self, Promotion { old, new }: Promotion, moved: &Notify) {
        if self.current.lock().as_ref().is_none_or(|current| *current == old) {
            *self.promised.lock() = Some((Instant::now(), new));
            moved.notify_one();
        }
    }

    /// What an event says of our master.
    fn promotion(&self, info: PushInfo) -> Option<Promotion> {
        let (PushKind::Message, [event, said]) = (info.kind, <[Value; 2]>::try_from(info.data).ok()?) else {
            return None;
        };
        let (event, said) = (text(event).ok()?, text(said).ok()?);
        promotion(&self.master_name, &event, &said)
    }
}

/// `+switch-master NAME OLD-HOST OLD-PORT HOST PORT`; the others `slave NAME HOST PORT @ MASTER-NAME OLD-HOST OLD-PORT`.
fn promotion(master_name: &str, event: &str, said: &str) -> Option<Promotion> {
    let words: Vec<&str> = said.split(' ').collect();
    let (name, old, new) = match (event, &words[..]) {
        ("+switch-master", [name, old_host, old_port, host, port]) => (name, (old_host, old_port), (host, port)),
        (_, ["slave", _, host, port, "@", name, old_host, old_port]) => (name, (old_host, old_port), (host, port)),
        _ => return None,
    };
    let address = |(host, port): (&&str, &&str)| Some(Address { host: (*host).to_owned(), port: port.parse().ok()? });
    (*name == master_name).then(|| Some(Promotion { old: address(old)?, new: address(new)? }))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_of_an_older_failover_is_no_news() {
        let dialer = Dialer::new(&crate::RedisSettings::default()).expect("the defaults are good");
        let sentinels = Sentinels::new(Arc::new(dialer), "one");
        let address = |port| Address { host: "10.0.0.1".to_owned(), port };
        let moved = Notify::new();
        sentinels.connected(&address(2));
        sentinels.promise(Promotion { old: address(1), new: address(2) }, &moved);
        assert_eq!(*sentinels.promised.lock(), None);
        sentinels.promise(Promotion { old: address(2), new: address(3) }, &moved);
        moved.notified().await;
        assert_eq!(sentinels.master().await, Ok(address(3)));
        sentinels.connected(&address(3));
        sentinels.promise(Promotion { old: address(1), new: address(2) }, &moved);
        assert_eq!(sentinels.master().await, Ok(address(3)));
    }

    #[test]
    fn an_event_names_the_next_master() {
        let to = |event: &str, said: &str| {
            promotion("one", event, said).map(|Promotion { old, new }| format!("{old} to {new}"))
        };
        assert_eq!(to("+switch-master", "one 10.0.0.1 1 10.0.0.2 2").as_deref(), Some("10.0.0.1:1 to 10.0.0.2:2"));
        assert_eq!(to("+switch-master", "other 10.0.0.1 1 10.0.0.2 2"), None);
        let slave = "slave 10.0.0.2:2 10.0.0.2 2 @ one 10.0.0.1 1";
        assert_eq!(to("+failover-state-wait-promotion", slave).as_deref(), Some("10.0.0.1:1 to 10.0.0.2:2"));
        assert_eq!(to("+promoted-slave", &slave.replace("one", "other")), None);
        assert_eq!(to("+promoted-slave", "sentinel x"), None);
    }
}
