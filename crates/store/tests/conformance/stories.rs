//! Stories: one transaction per use case, kept answers, paths, lists, invites.

use talewire_proto::{BranchId, Channel, ErrorCode, Payload, Since};
use talewire_store::{
    About, Branch, Choice, Decided, Decision, Direction, Effect, Facts, Invite, InviteCode, PageSize, Role, Rule,
    StoryCursor, StoryEvent,
};

use crate::Home;
use crate::world::{
    WHOLE, accepted, add_turn, begin, decide, done, events, log, main_branch, prose, queued, request, user,
};

pub(crate) async fn a_story_is_rows_and_log_at_once(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "s-rows").await;
    let added = add_turn(&store, &story, &main_branch("s-rows"), "rows-t1", None).await;
    assert_eq!(added.log.len(), 1);
    assert_eq!(added.log[0].entry.offset, 3);
    store.close().await;

    let store = home.open().await;
    let view = store.story_view(&story, None, WHOLE).await.unwrap().unwrap();
    assert_eq!((view.story.turns, view.story.members), (1, 1));
    assert_eq!(view.position.offset, 3);
    assert_eq!(view.position.epoch, added.log[0].epoch);
    assert_eq!(view.members[0].user, user("ana"));
    let page = store.history(&Channel::story(&story), Since::Oldest, 9, 9_999, Direction::Forward).await.unwrap();
    assert_eq!(page.entries[2], added.log[0].entry);
    let turn = view.page.turns[0].clone();
    assert_eq!(events(&store, &story).await[2], StoryEvent::TurnAdded { turn });
    assert_eq!(store.role(&user("ana"), &story).await.unwrap(), Some(Role::Owner));
    assert_eq!(store.role(&user("ben"), &story).await.unwrap(), None);
    assert_eq!(store.story_view(&story, Some(&"nowhere".parse().unwrap()), WHOLE).await.unwrap(), None);
    store.close().await;
}

pub(crate) async fn a_repeated_call_gets_its_answer_again(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "s-again").await;
    let main = main_branch("s-again");
    let first = add_turn(&store, &story, &main, "again-t1", Some("same")).await;
    store.close().await;

    let store = home.open().await;
    add_turn(&store, &story, &main, "again-t2", None).await;
    let again = add_turn(&store, &story, &main, "again-t3", Some("same")).await;
    assert!(again.repeated && again.log.is_empty());
    assert_eq!(again.answer, first.answer);
    // Two at once are one as well, whichever comes first.
    let (a, b) = tokio::join!(
        add_turn(&store, &story, &main, "again-t4", Some("both")),
        add_turn(&store, &story, &main, "again-t5", Some("both"))
    );
    assert!(a.repeated != b.repeated && a.answer == b.answer);
    assert_eq!(store.story_view(&story, None, WHOLE).await.unwrap().unwrap().story.turns, 3);
    store.close().await;
}

pub(crate) async fn a_refused_or_failing_rule_leaves_nothing(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "s-refused").await;
    let about = About::Branch(story.clone(), main_branch("s-refused"));
    let refuse: Rule = Box::new(|_| Err(ErrorCode::PermissionDenied.into()));
    let refused = decide(&store, "ana", about.clone(), Some("r1"), refuse).await;
    assert!(matches!(refused, Decided::Refused(refusal) if refusal.code == ErrorCode::PermissionDenied));
    // The second effect breaks the order of numbers: the first must go with it.
    let made_in = story.clone();
    let broken: Rule = Box::new(move |facts: &Facts| {
        let effects = ["refused-t1", "refused-t2"].map(|id| log(StoryEvent::TurnAdded { turn: prose(facts, id, "x") }));
        Ok(Decision { story: made_in, effects: effects.into(), answer: Payload::of(&()) })
    });
    let key = Some(talewire_store::CallKey { method: "test", key: "r2".into() });
    let question = talewire_store::Question { user: user("ana"), about, key };
    assert!(store.decide(question, broken).await.is_err());
    store.close().await;

    let store = home.open().await;
    assert_eq!(events(&store, &story).await.len(), 2);
    assert_eq!(store.story_view(&story, None, WHOLE).await.unwrap().unwrap().story.turns, 0);
    // A refusal is no answer to keep: the same key may succeed later.
    for key in ["r1", "r2"] {
        assert!(!add_turn(&store, &story, &main_branch("s-refused"), key, Some(key)).await.repeated);
    }
    store.close().await;
}

pub(crate) async fn kept_answers_are_pruned_after_their_time(home: &Home) {
    let day = 24 * 60 * 60 * 1_000;
    let store = home.open().await;
    let story = begin(&store, "s-prune").await;
    let main = main_branch("s-prune");
    add_turn(&store, &story, &main, "prune-t1", Some("kept")).await;
    store.shift_clock(day - 60_000);
    store.prune().await.unwrap();
    assert!(add_turn(&store, &story, &main, "prune-t2", Some("kept")).await.repeated);
    store.shift_clock(120_000);
    assert!(store.prune().await.unwrap() >= 1);
    assert_eq!(store.prune().await.unwrap(), 0);
    assert!(!add_turn(&store, &story, &main, "prune-t3", Some("kept")).await.repeated);
    store.close().await;
}

/// main: 1 2 3 4 5, side: from 3, then 4' 5'; twig: from 2 of side's path, that is of main's own turns.
pub(crate) async fn paths_lead_through_branches(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "s-paths").await;
    let main = main_branch("s-paths");
    for number in 1..=5 {
        add_turn(&store, &story, &main, &format!("main-{number}"), None).await;
    }
    let branch = |id: &str| id.parse::<BranchId>().unwrap();
    let fork = |id: &'static str, parent: BranchId, from: &'static str, number: u64| {
        let (store, story) = (store.clone(), story.clone());
        async move {
            let about = About::Branch(story.clone(), parent.clone());
            let rule: Rule = Box::new(move |facts: &Facts| {
                let choice = Choice {
                    id: format!("{id}-choice").parse().unwrap(),
                    turn: from.parse().unwrap(),
                    number: 1,
                    label: id.into(),
                    branch: Some(id.parse().unwrap()),
                };
                let made = Branch {
                    id: id.parse().unwrap(),
                    parent: Some(parent),
                    from: Some(from.parse().unwrap()),
                    choice: Some(choice.id.clone()),
                    label: id.into(),
                    created_at: facts.now_ms,
                };
                let mut turn = prose(facts, &format!("{id}-{}", number + 1), "picked");
                (turn.branch, turn.number) = (made.id.clone(), number + 1);
                // The choice has no row to mark here; a generation ends first, so that there is one.
                let ended = StoryEvent::GenerationEnded {
                    generation: talewire_store::Generation {
                        status: talewire_proto::generation::GenerationStatus::Done,
                        ..queued(&format!("{id}-g").parse().unwrap(), &made.id, None)
                    },
                    turn: None,
                    choices: vec![Choice { branch: None, ..choice.clone() }],
                };
                let asked = queued(&format!("{id}-g").parse().unwrap(), &made.id, None);
                let effects = vec![
                    log(StoryEvent::GenerationRequested { generation: asked }),
                    log(ended),
                    log(StoryEvent::ChoicePicked { choice, branch: made, turn, generation: None }),
                ];
                Ok(Decision { story, effects, answer: Payload::of(&()) })
            });
            accepted(decide(&store, "ana", about, None, rule).await);
        }
    };
    fork("side", main.clone(), "main-3", 3).await;
    add_turn(&store, &story, &branch("side"), "side-5", None).await;
    fork("twig", branch("side"), "main-2", 2).await;
    store.close().await;

    let store = home.open().await;
    let ids = |page: &talewire_store::TurnsPage| {
        page.turns.iter().map(|turn| turn.id.as_str().to_owned()).collect::<Vec<_>>().join(" ")
    };
    for (branch, path) in [
        (&main, "main-1 main-2 main-3 main-4 main-5"),
        (&branch("side"), "main-1 main-2 main-3 side-4 side-5"),
        (&branch("twig"), "main-1 main-2 twig-3"),
    ] {
        let whole = store.story_view(&story, Some(branch), WHOLE).await.unwrap().unwrap().page;
        assert_eq!((ids(&whole).as_str(), whole.more), (path, false));
        for (place, turn) in whole.turns.iter().enumerate() {
            assert_eq!(turn.number, place as u64 + 1);
        }
        // Any page size gives the same path, piece by piece.
        for turns_max in 1..=6 {
            let size = PageSize { turns_max, ..WHOLE };
            let mut page = store.story_view(&story, Some(branch), size).await.unwrap().unwrap().page;
            let mut pieces = vec![ids(&page)];
            while page.more {
                let before = page.turns[0].id.clone();
                page = store.turns_before(&story, branch, &before, size).await.unwrap().unwrap();
                pieces.push(ids(&page));
            }
            pieces.reverse();
            assert_eq!(pieces.join(" "), path);
        }
    }
    let view = store.story_view(&story, None, PageSize { turns_max: 9, bytes_max: 1 }).await.unwrap().unwrap();
    assert_eq!((view.branch.as_str(), ids(&view.page).as_str(), view.page.more), ("twig", "twig-3", true));
    let elsewhere = store.turns_before(&story, &branch("twig"), &"side-5".parse().unwrap(), WHOLE).await.unwrap();
    assert_eq!(elsewhere, None, "a turn that is not on the path");
    assert_eq!(view.page.choices, vec![]);
    let whole = store.story_view(&story, Some(&main), WHOLE).await.unwrap().unwrap().page;
    assert_eq!(
        whole.choices.iter().map(|choice| choice.id.as_str()).collect::<Vec<_>>(),
        ["twig-choice", "side-choice"]
    );
    store.close().await;
}

pub(crate) async fn lists_are_paged_by_activity(home: &Home) {
    let store = home.open().await;
    store.shift_clock(1_000_000_000);
    for name in ["s-list1", "s-list2", "s-list3"] {
        begin(&store, name).await;
        store.shift_clock(1_000);
    }
    add_turn(&store, &"s-list1".parse().unwrap(), &main_branch("s-list1"), "list-t1", None).await;
    store.close().await;

    let store = home.open().await;
    let first = store.stories_of(&user("ana"), 2, None).await.unwrap();
    assert_eq!(first.iter().map(|story| story.id.as_str()).collect::<Vec<_>>(), ["s-list1", "s-list3"]);
    let cursor = StoryCursor { active_at: first[1].active_at, story: first[1].id.clone() };
    assert_eq!(store.stories_of(&user("ana"), 1, Some(cursor)).await.unwrap()[0].id.as_str(), "s-list2");
    assert_eq!(store.stories_of(&user("nobody"), 9, None).await.unwrap(), []);
    store.close().await;
}

pub(crate) async fn invites_expire_by_the_databases_clock(home: &Home) {
    let store = home.open().await;
    let story = begin(&store, "s-invite").await;
    let add = |code: &'static str| {
        let (store, story) = (store.clone(), story.clone());
        async move {
            let about = About::Story(story.clone());
            let rule: Rule = Box::new(move |facts: &Facts| {
                let invite = Invite {
                    code: InviteCode::new(code),
                    role: Role::Writer,
                    created_at: facts.now_ms,
                    expires_at: facts.now_ms + 60_000,
                    uses: 0,
                };
                Ok(Decision { story, effects: vec![Effect::Invite(invite)], answer: Payload::of(&facts.invites) })
            });
            accepted(decide(&store, "ana", about, None, rule).await).answer.read::<u64>().unwrap()
        }
    };
    assert_eq!((add("one").await, add("two").await), (0, 1));
    assert_eq!(store.invites(&story).await.unwrap().len(), 2);
    let seen = store.invite(&InviteCode::new("one")).await.unwrap().unwrap();
    assert_eq!((seen.story.id, seen.expired), (story.clone(), false));
    store.shift_clock(60_000);
    assert!(store.invite(&InviteCode::new("one")).await.unwrap().unwrap().expired);
    assert_eq!(store.invites(&story).await.unwrap(), []);
    assert_eq!(add("three").await, 0, "expired ones do not count");
    assert_eq!(store.invite(&InviteCode::new("one")).await.unwrap(), None, "and go when a new one comes");
    store.close().await;
    let store = home.open().await;
    request(&store, "s-invite", "invite-g").await.unwrap();
    let job = store.claim(&"w".parse().unwrap(), 1_000).await.unwrap().unwrap();
    store.finish(done(&job.generation.id, 1, "x")).await.unwrap();
    store.close().await;
}
