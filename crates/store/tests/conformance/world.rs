//! What the steps of the suite write: stories by the simplest of rules, since real rules live in `talewire-story`.

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{BranchId, Channel, GenerationId, Payload, Publication, Since, StoryId, TurnId, UserId};
use talewire_store::{
    About, Accepted, Agent, Append, Author, AuthorKind, CallKey, Decided, Decision, Direction, Effect, Facts, Finish,
    Generation, Member, NewTurn, PageSize, Question, Role, Rule, Store, Story, StoryEvent, Turn, TurnKind,
};

pub(crate) fn user(name: &str) -> UserId {
    name.parse().unwrap()
}

pub(crate) fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

pub(crate) fn append(channel: &Channel, text: &str) -> Append {
    let publication = Publication { data: Some(Payload::of(&text)), ..Publication::default() };
    Append { channel: channel.clone(), publication, key: None, version: None }
}

/// The payloads of a channel, in order, with offsets that rise by one.
pub(crate) async fn texts(store: &Store, channel: &Channel) -> Vec<String> {
    let page = store.history(channel, Since::Oldest, usize::MAX, usize::MAX, Direction::Forward).await.unwrap();
    assert!(page.complete);
    for (place, entry) in page.entries.iter().enumerate() {
        assert_eq!(entry.offset, place as u64 + 1);
    }
    assert_eq!(page.top.offset, page.entries.len() as u64);
    page.entries.iter().map(|entry| entry.publication.data.as_ref().unwrap().read().unwrap()).collect()
}

/// The types of the entries in a story's log.
pub(crate) async fn events(store: &Store, story: &StoryId) -> Vec<StoryEvent> {
    let page =
        store.history(&Channel::story(story), Since::Oldest, usize::MAX, usize::MAX, Direction::Forward).await.unwrap();
    page.entries.iter().map(|entry| entry.publication.data.as_ref().unwrap().read().unwrap()).collect()
}

pub(crate) const WHOLE: PageSize = PageSize { turns_max: 1_000, bytes_max: 1_000_000 };

pub(crate) fn story_id(name: &str) -> StoryId {
    name.parse().unwrap()
}

pub(crate) fn main_branch(name: &str) -> BranchId {
    format!("{name}-main").parse().unwrap()
}

pub(crate) async fn decide(store: &Store, who: &str, about: About, key: Option<&str>, rule: Rule) -> Decided {
    let key = key.map(|key| CallKey { method: "test", key: key.to_owned() });
    store.decide(Question { user: user(who), about, key }, rule).await.unwrap()
}

pub(crate) fn accepted(decided: Decided) -> Accepted {
    match decided {
        Decided::Accepted(accepted) => accepted,
        Decided::Refused(refusal) => panic!("refused: {refusal}"),
    }
}

pub(crate) fn log(event: StoryEvent) -> Effect {
    Effect::Log(Box::new(event))
}

/// A story of `ana` with an empty main branch.
pub(crate) async fn begin(store: &Store, name: &str) -> StoryId {
    let id = story_id(name);
    let (story, branch) = (id.clone(), main_branch(name));
    let rule: Rule = Box::new(move |facts: &Facts| {
        let now = facts.now_ms;
        let owner = user("ana");
        let made = Story {
            id: story.clone(),
            title: "A story".into(),
            owner: owner.clone(),
            branch,
            created_at: now,
            active_at: now,
            turns: 0,
            members: 0,
        };
        let member = Member { user: owner, name: "Ana".into(), role: Role::Owner, joined_at: now };
        let effects = vec![log(StoryEvent::StoryCreated { story: made }), log(StoryEvent::MemberJoined { member })];
        Ok(Decision { story, effects, answer: Payload::of(&"begun") })
    });
    accepted(decide(store, "ana", About::NewStory, None, rule).await);
    id
}

pub(crate) fn prose(facts: &Facts, id: &str, text: &str) -> Turn {
    let branch = facts.branch.as_ref().unwrap();
    Turn {
        id: id.parse().unwrap(),
        branch: branch.branch.id.clone(),
        number: branch.tip.as_ref().map_or(0, |tip| tip.number) + 1,
        author: Author { kind: AuthorKind::Person, id: "ana".into(), name: "Ana".into() },
        kind: TurnKind::Prose,
        text: text.into(),
        created_at: facts.now_ms,
        generation: None,
    }
}

pub(crate) async fn add_turn(
    store: &Store,
    story: &StoryId,
    branch: &BranchId,
    id: &str,
    key: Option<&str>,
) -> Accepted {
    let (made_in, id) = (story.clone(), id.to_owned());
    let rule: Rule = Box::new(move |facts: &Facts| {
        let turn = prose(facts, &id, &format!("text of {id}"));
        let effects = vec![log(StoryEvent::TurnAdded { turn: turn.clone() })];
        Ok(Decision { story: made_in, effects, answer: Payload::of(&turn.number) })
    });
    accepted(decide(store, "ana", About::Branch(story.clone(), branch.clone()), key, rule).await)
}

pub(crate) fn queued(id: &GenerationId, branch: &BranchId, after: Option<TurnId>) -> Generation {
    Generation {
        id: id.clone(),
        branch: branch.clone(),
        agent: Agent { id: "narrator".into(), name: "Narrator".into() },
        status: GenerationStatus::Queued,
        attempt: 0,
        by: user("ana"),
        requested_at: 1,
        after,
        reason: None,
    }
}

/// Asks for a generation on the main branch of a story.
pub(crate) async fn request(store: &Store, story: &str, id: &str) -> Result<GenerationId, talewire_store::StoreError> {
    let id: GenerationId = id.parse().unwrap();
    let (made_in, generation) = (story_id(story), queued(&id, &main_branch(story), None));
    let wanted = id.clone();
    let rule: Rule = Box::new(move |_| {
        let effects =
            vec![log(StoryEvent::GenerationRequested { generation }), Effect::Instruct(wanted, "make it rain".into())];
        Ok(Decision { story: made_in, effects, answer: Payload::of(&()) })
    });
    let about = About::Branch(story_id(story), main_branch(story));
    store.decide(Question { user: user("ana"), about, key: None }, rule).await.map(|_| id)
}

pub(crate) fn done(id: &GenerationId, attempt: u32, text: &str) -> Finish {
    Finish {
        generation: id.clone(),
        attempt,
        status: GenerationStatus::Done,
        reason: None,
        turn: Some(NewTurn { text: text.into(), label: "a model".into() }),
        choices: vec!["left".into(), "right".into()],
        usage: Some(r#"{"output":3}"#.into()),
    }
}
