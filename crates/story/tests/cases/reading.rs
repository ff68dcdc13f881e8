//! What readers get: the exact shapes of the protocol, pages, snapshots, exports, contexts.

use serde_json::{Value, json};
use talewire_proto::GenerationId;
use talewire_proto::generation::GenerationStatus;
use talewire_story::StoryLimits;

use crate::world::{World, caller};

fn fields(value: &Value) -> String {
    let mut fields: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    fields.sort_unstable();
    fields.join(" ")
}

#[tokio::test]
async fn an_opened_story_has_the_shape_of_the_protocol() {
    let world = World::peopled(StoryLimits::default()).await;
    let opened = world.call("rea", "story.open", &json!({"story": world.name("story")})).await.unwrap();
    assert_eq!(fields(&opened), "branches choices generations me members more position story turns");
    assert_eq!(fields(&opened["story"]), "active_at branch created_at id members owner title turns");
    assert_eq!((&opened["story"]["turns"], &opened["story"]["members"]), (&json!(2), &json!(3)));
    assert_eq!(fields(&opened["me"]), "joined_at name role user");
    assert_eq!(opened["me"]["role"], "reader");
    assert_eq!(fields(&opened["branches"][0]), "created_at id label");
    assert_eq!(fields(&opened["choices"][0]), "id label number turn");
    assert_eq!(fields(&opened["turns"][0]), "author branch created_at id kind number text");
    assert_eq!(fields(&opened["turns"][1]["generation"]), "attempt id label status");
    assert_eq!(fields(&opened["generations"][0]), "after agent attempt branch by id requested_at status");
    assert_eq!(opened["position"]["offset"], world.log().await.len());
    assert!(opened["position"]["epoch"].is_string());
    let shown = world.call("zoe", "invite.show", &json!({"code": world.name("code")})).await.unwrap();
    assert_eq!(shown, json!({"title": "The Fox", "role": "writer", "members": 3}));
    let invites = world.call("ana", "invite.list", &json!({"story": world.name("story")})).await.unwrap();
    assert_eq!(fields(&invites["invites"][0]), "code created_at expires_at role uses");
    assert_eq!(invites["invites"][0]["uses"], 1);
}

#[tokio::test]
async fn what_was_opened_and_the_log_from_there_on_are_the_whole_story() {
    let mut world = World::peopled(StoryLimits::default()).await;
    let opened = world.call("rea", "story.open", &json!({"story": world.name("story")})).await.unwrap();
    let position = opened["position"]["offset"].as_u64().unwrap() as usize;
    world.play(r#"ben turn.add {"story":"$story","branch":"$main","text":"More.","key":"m"} -> turn.added"#).await;
    let after = &world.log().await[position..];
    assert_eq!(after.len(), 1);
    let mut turns = opened["turns"].as_array().unwrap().clone();
    turns.push(after[0]["turn"].clone());
    let again = world.call("rea", "story.open", &json!({"story": world.name("story")})).await.unwrap();
    assert_eq!(again["turns"], Value::Array(turns));
}

#[tokio::test]
async fn lists_and_turns_come_in_pages() {
    let mut world = World::with(StoryLimits { page_turns_max: 2, page_stories_max: 2, ..StoryLimits::default() }).await;
    for number in 1..=5 {
        let create = json!({"title": format!("Story {number}"), "key": number.to_string()});
        world.call("ana", "story.create", &create).await.unwrap();
        world.store.shift_clock(1_000);
    }
    let mut titles = Vec::new();
    let mut params = json!({});
    loop {
        let page = world.call("ana", "story.list", &params).await.unwrap();
        titles.extend(
            page["stories"].as_array().unwrap().iter().map(|story| story["title"].as_str().unwrap().to_owned()),
        );
        match page.get("next") {
            Some(next) => params = json!({ "before": next }),
            None => break,
        }
    }
    assert_eq!(titles, ["Story 5", "Story 4", "Story 3", "Story 2", "Story 1"]);

    world.play(r#"ana story.create {"title":"The Fox","key":"f"} -> story.created member.joined"#).await;
    for number in 1..=5 {
        let turn = json!({"story": world.name("story"), "branch": world.name("main"), "text": number.to_string(), "key": number.to_string()});
        world.call("ana", "turn.add", &turn).await.unwrap();
    }
    let opened = world.call("ana", "story.open", &json!({"story": world.name("story"), "limit": 99})).await.unwrap();
    assert_eq!((opened["turns"].as_array().unwrap().len(), &opened["more"]), (2, &json!(true)));
    let before = json!({"story": world.name("story"), "branch": world.name("main"), "before": opened["turns"][0]["id"], "limit": 2});
    let page = world.call("ana", "story.turns", &before).await.unwrap();
    assert_eq!(
        (&page["turns"][0]["text"], &page["turns"][1]["text"], &page["more"]),
        (&json!("2"), &json!("3"), &json!(true))
    );
    let before = json!({"story": world.name("story"), "branch": world.name("main"), "before": page["turns"][0]["id"]});
    let page = world.call("ana", "story.turns", &before).await.unwrap();
    assert_eq!((&page["turns"][0]["text"], &page["more"]), (&json!("1"), &json!(false)));
}

#[tokio::test]
async fn a_snapshot_follows_a_generation_to_its_end() {
    let world = World::peopled(StoryLimits::default()).await;
    let wanted = json!({"story": world.name("story"), "generation": world.name("generation")});
    let snapshot = async || world.call("rea", "generation.snapshot", &wanted).await.unwrap();
    let shape = |attempt: u32, text: &str, status: &str| json!({"type": "snapshot", "generation": world.name("generation"), "attempt": attempt, "at": 0, "text": text, "status": status});
    assert_eq!(snapshot().await, shape(0, "", "queued"));
    let id: GenerationId = world.claim().await.unwrap();
    assert_eq!(snapshot().await, shape(1, "", "running"));
    world.broker.generation_begin(&world.story(), &id, 1).await.unwrap();
    world.broker.generation_append(&world.story(), &id, 1, 0, "It sno").await.unwrap();
    assert_eq!(snapshot().await, shape(1, "It sno", "running"));
    // The worker has committed, and dies before it ends the stream.
    world.finish(&id, GenerationStatus::Done, "It snowed.").await;
    assert_eq!(snapshot().await, shape(1, "It snowed.", "done"));
}

#[tokio::test]
async fn a_failed_generation_keeps_showing_what_came_of_it() {
    let world = World::peopled(StoryLimits::default()).await;
    let id = world.claim().await.unwrap();
    world.broker.generation_begin(&world.story(), &id, 1).await.unwrap();
    world.broker.generation_append(&world.story(), &id, 1, 0, "It sno").await.unwrap();
    world.finish(&id, GenerationStatus::Failed, "").await;
    let wanted = json!({"story": world.name("story"), "generation": world.name("generation")});
    let snapshot = world.call("rea", "generation.snapshot", &wanted).await.unwrap();
    assert_eq!((&snapshot["text"], &snapshot["status"]), (&json!("It sno"), &json!("failed")));
    let log = world.log().await;
    assert_eq!(log.last().unwrap()["generation"]["reason"], json!({"code": "x", "message": "y"}));
}

#[tokio::test]
async fn a_long_story_is_exported_whole_or_not_at_all() {
    let mut world =
        World::with(StoryLimits { page_turns_max: 2, export_bytes_max: 12, ..StoryLimits::default() }).await;
    world.play(r#"ana story.create {"title":"The <Fox>","opening":"1","key":"f"} -> story.created member.joined turn.added"#).await;
    for number in 2..=12 {
        let turn =
            json!({"story": world.name("story"), "branch": world.name("main"), "text": "x", "key": number.to_string()});
        world.call("ana", "turn.add", &turn).await.unwrap();
    }
    let export = world.stories.export_markdown(&caller("ana"), &world.story(), None).await.unwrap();
    assert_eq!(export.file_name, "the-fox.md");
    assert!(export.text.starts_with("# The \\<Fox\\>\n\nBy Ana\n\n1\n\n*— Ana*\n\nx\n"), "{}", export.text);
    assert_eq!(export.text.matches("*— Ana*").count(), 12);
    let one_more = json!({"story": world.name("story"), "branch": world.name("main"), "text": "x", "key": "13"});
    world.call("ana", "turn.add", &one_more).await.unwrap();
    let refusal = world.stories.export_markdown(&caller("ana"), &world.story(), None).await.unwrap_err();
    assert_eq!(refusal.code.code(), 106);
}

#[tokio::test]
async fn an_agent_is_shown_the_end_of_the_path() {
    let world = World::peopled(StoryLimits { context_turns_max: 1, ..StoryLimits::default() }).await;
    let context = world.stories.context(&world.story(), &world.name("main").parse().unwrap()).await.unwrap();
    assert_eq!((context.title.as_str(), context.turns.len(), context.more), ("The Fox", 1, true));
    assert_eq!(context.turns[0].text.as_str(), "It rained.");
    assert_eq!(context.members, ["Ana", "Rea", "Ben"]);
    assert_eq!(context.choices.len(), 2);
    assert!(!format!("{context:?}").contains("rained"), "no story text in Debug");
    assert!(world.stories.context(&world.story(), &"nowhere".parse().unwrap()).await.is_err());
}
