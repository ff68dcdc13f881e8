//! A map from channels for things that most connections have one or two of: a sorted list in one piece of memory.
//!
//! A hash table costs several hundred bytes before it holds anything, and a server has a connection a hundred thousand times. Looking up is
//! a binary search, inserting moves what comes after; a connection has at most `limits.subscriptions_max` channels.

use crate::channel::Channel;

/// Values by channel, in the order of the channels' names.
#[derive(Debug, Clone)]
pub struct ByChannel<T>(Vec<(Channel, T)>);

impl<T> Default for ByChannel<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByChannel<T> {
    fn place(&self, channel: &Channel) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(channel))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is one for this channel.
    #[must_use]
    pub fn contains(&self, channel: &Channel) -> bool {
        self.place(channel).is_ok()
    }

    /// The value of a channel.
    #[must_use]
    pub fn get(&self, channel: &Channel) -> Option<&T> {
        self.place(channel).ok().map(|at| &self.0[at].1)
    }

    /// The value of a channel, to be changed.
    pub fn get_mut(&mut self, channel: &Channel) -> Option<&mut T> {
        self.place(channel).ok().map(|at| &mut self.0[at].1)
    }

    /// Puts a value in the place of whatever was there.
    pub fn insert(&mut self, channel: Channel, value: T) {
        match self.place(&channel) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => {
                if self.0.len() < 4 {
                    // A list grows by doubling from four; most never have a second.
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (channel, value));
            }
        }
    }

    /// Takes the value of a channel away.
    pub fn remove(&mut self, channel: &Channel) -> Option<T> {
        let at = self.place(channel).ok()?;
        let (_, value) = self.0.remove(at);
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
        Some(value)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Channel, &T)> {
        self.0.iter().map(|(channel, value)| (channel, value))
    }

    /// All channels, by name.
    pub fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.0.iter().map(|(channel, _)| channel)
    }

    /// All of them, as they lie.
    #[must_use]
    pub fn as_slice(&self) -> &[(Channel, T)] {
        &self.0
    }
}

impl<T> IntoIterator for ByChannel<T> {
    type Item = (Channel, T);
    type IntoIter = std::vec::IntoIter<(Channel, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(ops in proptest::collection::vec((0..12u8, prop::option::of(any::<u32>())), 0..60)) {
            let (mut list, mut map) = (ByChannel::default(), BTreeMap::new());
            for (name, value) in ops {
                let channel: Channel = format!("c{name}").parse().expect("a name");
                prop_assert_eq!(list.get(&channel), map.get(&channel));
                if let Some(value) = value {
                    list.insert(channel.clone(), value);
                    map.insert(channel.clone(), value);
                } else {
                    prop_assert_eq!(list.remove(&channel), map.remove(&channel));
                }
                prop_assert_eq!(list.contains(&channel), map.contains_key(&channel));
                prop_assert_eq!((list.len(), list.is_empty()), (map.len(), map.is_empty()));
                prop_assert!(list.iter().eq(map.iter()));
            }
        }
    }
}
