//! Who may do what: every method by every kind of person, each in a fresh world.

use serde_json::{Value, json};
use talewire_story::{Method, Role, StoryLimits};

use crate::world::{World, caller};

const OK: u32 = 0;
const NO: u32 = 103;
const UNSEEN: u32 = 404;

/// Ana owns, Ben writes, Rea reads, Zoe is a stranger.
fn matrix(method: Method) -> [u32; 4] {
    match method {
        Method::StoryCreate | Method::StoryList | Method::InviteShow | Method::StoryJoin => [OK, OK, OK, OK],
        Method::StoryOpen | Method::StoryTurns | Method::GenerationSnapshot => [OK, OK, OK, UNSEEN],
        Method::TurnAdd | Method::GenerationRequest | Method::GenerationStop | Method::ChoicePick => {
            [OK, OK, NO, UNSEEN]
        }
        Method::StoryRename | Method::InviteCreate | Method::InviteList | Method::InviteRevoke => [OK, NO, NO, UNSEEN],
    }
}

async fn params(world: &World, method: Method) -> Value {
    let (story, main, code) = (world.name("story"), world.name("main"), world.name("code"));
    match method {
        Method::StoryCreate => json!({"title": "Another", "key": "k"}),
        Method::StoryList => json!({}),
        Method::StoryOpen | Method::InviteList => json!({ "story": story }),
        Method::StoryTurns => {
            let opened = world.call("ana", "story.open", &json!({ "story": story })).await.unwrap();
            json!({"story": story, "branch": main, "before": opened["turns"][1]["id"]})
        }
        Method::StoryRename => json!({"story": story, "title": "Another", "key": "k"}),
        Method::InviteCreate => json!({"story": story, "role": "reader", "key": "k"}),
        Method::InviteRevoke => json!({"story": story, "code": code}),
        Method::InviteShow | Method::StoryJoin => json!({ "code": code }),
        Method::TurnAdd => json!({"story": story, "branch": main, "text": "More.", "key": "k"}),
        Method::GenerationRequest => {
            let open = json!({"story": story, "generation": world.name("generation")});
            world.call("ana", "generation.stop", &open).await.unwrap();
            json!({"story": story, "branch": main, "key": "k"})
        }
        Method::GenerationStop | Method::GenerationSnapshot => {
            json!({"story": story, "generation": world.name("generation")})
        }
        Method::ChoicePick => json!({"story": story, "choice": world.name("choice"), "key": "k"}),
    }
}

#[tokio::test]
async fn every_method_asks_for_its_role() {
    for &method in Method::ALL {
        for (who, wanted) in ["ana", "ben", "rea", "zoe"].into_iter().zip(matrix(method)) {
            let world = World::peopled(StoryLimits::default()).await;
            let params = params(&world, method).await;
            let before = world.log().await.len();
            let got = world.call(who, method.name(), &params).await.map_err(|refusal| refusal.code.code());
            assert_eq!(got.as_ref().err().copied().unwrap_or(OK), wanted, "{} by {who}", method.name());
            if wanted != OK {
                assert_eq!(world.log().await.len(), before, "{} by {who} left something", method.name());
            }
        }
    }
}

#[tokio::test]
async fn things_of_another_story_are_not_there() {
    let world = World::peopled(StoryLimits::default()).await;
    let other = world.call("zoe", "story.create", &json!({"title": "Other", "key": "k"})).await.unwrap();
    let story = &other["story"]["id"];
    for (method, params) in [
        ("story.open", json!({"story": story, "branch": world.name("main")})),
        ("story.turns", json!({"story": story, "branch": other["story"]["branch"], "before": world.name("choice")})),
        ("turn.add", json!({"story": story, "branch": world.name("main"), "text": "x", "key": "1"})),
        ("generation.request", json!({"story": story, "branch": world.name("main"), "key": "2"})),
        ("generation.stop", json!({"story": story, "generation": world.name("generation")})),
        ("generation.snapshot", json!({"story": story, "generation": world.name("generation")})),
        ("choice.pick", json!({"story": story, "choice": world.name("choice"), "key": "3"})),
    ] {
        let refusal = world.call("zoe", method, &params).await.unwrap_err();
        assert_eq!(refusal.code.code(), UNSEEN, "{method}");
    }
    let revoked = json!({"story": story, "code": world.name("code")});
    world.call("zoe", "invite.revoke", &revoked).await.unwrap();
    let code = json!({"code": world.name("code")});
    assert!(world.call("zoe", "invite.show", &code).await.is_ok(), "another story's invite is still good");
}

#[tokio::test]
async fn roles_and_exports_follow_membership() {
    let world = World::peopled(StoryLimits::default()).await;
    for (who, role) in
        [("ana", Some(Role::Owner)), ("ben", Some(Role::Writer)), ("rea", Some(Role::Reader)), ("zoe", None)]
    {
        assert_eq!(world.stories.role(&caller(who).user, &world.story()).await.unwrap(), role);
        let export = world.stories.export_markdown(&caller(who), &world.story(), None).await;
        assert_eq!(export.is_ok(), role.is_some());
    }
}
