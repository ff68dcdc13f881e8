//! Every limit is refused with its code, and what came before it stays.

use talewire_proto::ErrorCode;
use talewire_story::StoryLimits;

use crate::world::World;

#[tokio::test]
async fn stories_of_one_person() {
    let mut world = World::with(StoryLimits { stories_per_user_max: 1, ..StoryLimits::default() }).await;
    world
        .play(
            r#"
            ben story.create {"title":"Mine","key":"1"} -> story.created member.joined
            ben story.create {"title":"Mine too","key":"2"} -> 106
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana invite.create {"story":"$story","role":"reader","key":"2"} -> nothing
            ben story.join {"code":"$code"} -> 106
            "#,
        )
        .await;
}

#[tokio::test]
async fn members_and_invites_of_one_story() {
    let limits = StoryLimits { members_per_story_max: 2, invites_per_story_max: 1, ..StoryLimits::default() };
    let mut world = World::with(limits).await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana invite.create {"story":"$story","role":"reader","key":"2"} -> nothing
            ana invite.create {"story":"$story","role":"reader","key":"3"} -> 106
            ben story.join {"code":"$code"} -> member.joined
            zoe story.join {"code":"$code"} -> 106
            ben story.join {"code":"$code"} -> nothing
            ana invite.revoke {"story":"$story","code":"$code"} -> nothing
            ana invite.create {"story":"$story","role":"reader","key":"4"} -> nothing
            "#,
        )
        .await;
}

#[tokio::test]
async fn turns_of_one_story() {
    let mut world =
        World::with(StoryLimits { turns_per_story_max: 1, turn_chars_max: 5, ..StoryLimits::default() }).await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana turn.add {"story":"$story","branch":"$main","text":"123456","key":"2"} -> 422
            ana turn.add {"story":"$story","branch":"$main","text":"12345","key":"2"} -> turn.added
            ana turn.add {"story":"$story","branch":"$main","text":"more","key":"3"} -> 106
            ana generation.request {"story":"$story","branch":"$main","key":"4"} -> 106
            "#,
        )
        .await;
}

#[tokio::test]
async fn open_generations_of_one_person() {
    let limits = StoryLimits { open_generations_per_user_max: 1, ..StoryLimits::default() };
    let mut world = World::with(limits).await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","opening":"Once.","key":"1"} -> story.created member.joined turn.added
            ana generation.request {"story":"$story","branch":"$main","key":"2"} -> generation.requested
            "#,
        )
        .await;
    let elsewhere = serde_json::json!({"title": "The Owl", "opening": "Twice.", "key": "3"});
    let story = world.call("ana", "story.create", &elsewhere).await.unwrap()["story"].clone();
    let ask = serde_json::json!({"story": story["id"], "branch": story["branch"], "key": "4"});
    let refused = world.call("ana", "generation.request", &ask).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::LimitExceeded);
}

#[tokio::test]
async fn branches_and_open_generations_of_one_story() {
    let limits = StoryLimits {
        branches_per_story_max: 2,
        open_generations_per_story_max: 1,
        instruction_chars_max: 3,
        ..StoryLimits::default()
    };
    let mut world = World::with(limits).await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","opening":"Once.","key":"1"} -> story.created member.joined turn.added
            ana generation.request {"story":"$story","branch":"$main","instruction":"rain","key":"2"} -> 422
            ana generation.request {"story":"$story","branch":"$main","instruction":"sun","key":"2"} -> generation.requested
            worker ends A door. -> generation.started generation.ended
            ana generation.request {"story":"$story","branch":"$main","key":"3"} -> generation.requested
            ana choice.pick {"story":"$story","choice":"$choice","key":"4"} -> choice.picked
            ana generation.request {"story":"$story","branch":"$branch","key":"5"} -> 106
            "#,
        )
        .await;
    let log = world.log().await;
    assert_eq!(log.last().unwrap().get("generation"), None, "the pick counts, and asks for nothing");
    let main = serde_json::json!({"story": world.name("story"), "branch": world.name("main")});
    let opened = world.call("ana", "story.open", &main).await.unwrap();
    let second = serde_json::json!({"story": world.name("story"), "choice": opened["choices"][1]["id"], "key": "6"});
    assert_eq!(world.call("ana", "choice.pick", &second).await.unwrap_err().code.code(), 106);
}
