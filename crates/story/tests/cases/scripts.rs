//! Scripts: what calls add to a story's log, or how they are refused.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn people_write_a_story() {
    let mut world = World::new().await;
    world
        .play(
            r#"
            ana story.create {"title":" The Fox ","key":"1"} -> story.created member.joined
            ana turn.add {"story":"$story","branch":"$main","text":"Once.","key":"2"} -> turn.added
            ana story.rename {"story":"$story","title":"The Old Fox","key":"3"} -> story.renamed
            ana story.rename {"story":"$story","title":"The Old Fox","key":"4"} -> nothing
            ben turn.add {"story":"$story","branch":"$main","text":"No.","key":"5"} -> 404
            ana invite.create {"story":"$story","role":"writer","key":"6"} -> nothing
            ben invite.show {"code":"$code"} -> nothing
            ben story.join {"code":"$code"} -> member.joined
            ben story.join {"code":"$code"} -> nothing
            ben turn.add {"story":"$story","branch":"$main","text":"Then.","key":"7"} -> turn.added
            ben turn.add {"story":"$story","branch":"nowhere","text":"Then.","key":"8"} -> 404
            ben story.rename {"story":"$story","title":"Mine","key":"9"} -> 103
            "#,
        )
        .await;
    assert_eq!(world.announced(), world.log().await, "everything is announced, in order");
    let log = world.log().await;
    assert_eq!(log[0]["story"]["title"], "The Fox");
    assert_eq!(log[5]["turn"]["number"], 2);
    assert_eq!(log[5]["turn"]["author"], json!({"kind": "person", "id": "ben", "name": "Ben"}));
}

#[tokio::test]
async fn a_repeated_key_has_one_effect_and_one_answer() {
    let mut world = World::new().await;
    let create = json!({"title": "The Fox", "opening": "Once.", "key": "same"});
    let first = world.call("ana", "story.create", &create).await.unwrap();
    assert_eq!(world.call("ana", "story.create", &create).await.unwrap(), first);
    assert_ne!(world.call("ben", "story.create", &create).await.unwrap(), first, "another person's key is another key");
    let listed = world.call("ana", "story.list", &json!({})).await.unwrap();
    assert_eq!(listed["stories"], json!([first["story"]]));
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana turn.add {"story":"$story","branch":"$main","text":"Once.","key":"k"} -> turn.added
            ana turn.add {"story":"$story","branch":"$main","text":"Twice.","key":"k"} -> nothing
            ana generation.request {"story":"$story","branch":"$main","key":"k"} -> generation.requested
            ana generation.request {"story":"$story","branch":"$main","key":"k"} -> nothing
            ana generation.request {"story":"$story","branch":"$main","key":"other"} -> 409
            ana invite.create {"story":"$story","role":"reader","key":"k"} -> nothing
            ana invite.create {"story":"$story","role":"reader","key":"k"} -> nothing
            "#,
        )
        .await;
    let invites = world.call("ana", "invite.list", &json!({"story": world.name("story")})).await.unwrap();
    assert_eq!(invites["invites"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_narrator_is_asked_stopped_and_asked_again() {
    let mut world = World::new().await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana generation.request {"story":"$story","branch":"$main","instruction":"Rain","key":"2"} -> generation.requested
            ana generation.stop {"story":"$story","generation":"$generation"} -> generation.ended
            ana generation.stop {"story":"$story","generation":"$generation"} -> nothing
            ana generation.request {"story":"$story","branch":"$main","instruction":" ","key":"3"} -> generation.requested
            "#,
        )
        .await;
    assert_eq!(world.log().await[3]["generation"]["status"], "cancelled");
    assert_eq!(world.frames()[0]["type"], "end", "readers of the stream hear of it too");
    let mut wakeups = world.broker.wakeups();
    let generation = world.claim().await.unwrap();
    world
        .play(
            r#"
            ana generation.stop {"story":"$story","generation":"$generation"} -> nothing
            ana generation.stop {"story":"$story","generation":"nowhere"} -> 404
            "#,
        )
        .await;
    assert_eq!(wakeups.recv().await.unwrap(), talewire_broker::WakeUp::Cancel(generation.clone()));
    assert!(world.store.cancel_requested(&generation).await.unwrap());
}

#[tokio::test]
async fn the_first_pick_of_a_choice_starts_a_branch_and_later_ones_lead_there() {
    let mut world = World::new().await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","opening":"Once.","key":"1"} -> story.created member.joined turn.added
            ana generation.request {"story":"$story","branch":"$main","key":"2"} -> generation.requested
            worker ends A door. -> generation.started generation.ended
            ana turn.add {"story":"$story","branch":"$main","text":"And on.","key":"3"} -> turn.added
            ana invite.create {"story":"$story","role":"writer","key":"4"} -> nothing
            ben story.join {"code":"$code"} -> member.joined
            "#,
        )
        .await;
    let (story, choice) = (world.name("story"), world.name("choice"));
    let pick = |key: &str| json!({"story": story, "choice": choice, "key": key});
    let first = world.call("ana", "choice.pick", &pick("a")).await.unwrap();
    let again = world.call("ana", "choice.pick", &pick("a")).await.unwrap();
    let later = world.call("ben", "choice.pick", &pick("b")).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(later, first);
    assert_eq!(first["branch"]["label"], "Open the door");
    assert_eq!(first["branch"]["parent"], *world.name("main"));
    assert_eq!((&first["turn"]["kind"], &first["turn"]["number"]), (&json!("choice"), &json!(3)));
    assert_eq!(first["generation"]["after"], first["turn"]["id"]);
    assert_eq!(first["generation"]["agent"], json!({"id": "narrator", "name": "Narrator"}));
    let log = world.log().await;
    let picked = log.last().unwrap();
    assert_eq!(picked["type"], "choice.picked");
    assert_eq!(picked["choice"]["branch"], first["branch"]["id"]);
    let opened = world.call("ben", "story.open", &json!({"story": world.name("story")})).await.unwrap();
    assert_eq!(opened["story"]["branch"], first["branch"]["id"], "it is the live one");
    assert_eq!(opened["turns"][2], first["turn"]);
    assert_eq!(opened["generations"], json!([first["generation"]]));
    world.play("worker ends Inside. -> generation.started generation.ended").await;
    let done = world.call("ben", "choice.pick", &pick("c")).await.unwrap();
    assert_eq!((&done["turn"], &done["generation"]["status"]), (&first["turn"], &json!("done")));
}

#[tokio::test]
async fn a_bad_invite_is_a_bad_invite_whatever_is_wrong_with_it() {
    let mut world = World::new().await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana invite.create {"story":"$story","role":"owner","key":"2"} -> 107
            ana invite.create {"story":"$story","role":"reader","key":"3"} -> nothing
            ana invite.revoke {"story":"$story","code":"$code"} -> nothing
            ana invite.revoke {"story":"$story","code":"$code"} -> nothing
            ben story.join {"code":"$code"} -> 410
            ben invite.show {"code":"$code"} -> 410
            ben story.join {"code":"never"} -> 410
            ben invite.show {"code":""} -> 410
            ana invite.create {"story":"$story","role":"reader","key":"4"} -> nothing
            ben invite.show {"code":"$code"} -> nothing
            "#,
        )
        .await;
    assert!(world.name("code").len() >= 16);
    world.store.shift_clock(7 * 24 * 60 * 60 * 1_000);
    world
        .play(
            r#"
            ben invite.show {"code":"$code"} -> 410
            ben story.join {"code":"$code"} -> 410
            "#,
        )
        .await;
    let long = "x".repeat(10_000);
    assert_eq!(world.call("ben", "story.join", &json!({"code": long})).await.unwrap_err().code.code(), 410);
}

#[tokio::test]
async fn malformed_calls_are_refused_and_say_no_story_text() {
    let mut world = World::new().await;
    world
        .play(
            r#"
            ana story.create {"title":"The Fox","key":"1"} -> story.created member.joined
            ana story.create {"title":"The Fox"} -> 107
            ana story.create {"title":"The Fox","key":""} -> 107
            ana story.create {"title":"The Fox","key":"2","extra":1} -> 107
            ana story.create {"title":"","key":"2"} -> 422
            ana story.create {"title":"a\u202eb","key":"2"} -> 422
            ana story.create {"title":"The Fox","opening":" ","key":"2"} -> 422
            ana story.create [] -> 107
            ana story.open {"story":"../x"} -> 107
            ana story.open {"story":"nowhere"} -> 404
            ana story.list {"before":"x"} -> 107
            ana story.list {"limit":-1} -> 107
            ana turn.add {"story":"$story","branch":"$main","text":"a\u0000b","key":"3"} -> 422
            ana turn.add {"story":"$story","branch":"$main","text":{"secret":"words"},"key":"3"} -> 107
            ana story.delete {} -> 104
            "#,
        )
        .await;
    let wrong = json!({"story": "the secret words", "branch": 7, "text": "the secret words"});
    let refusal = world.call("ana", "turn.add", &wrong).await.unwrap_err();
    assert!(!refusal.message.contains("secret"), "{refusal}");
    let nobody = talewire_story::Caller { user: "".parse().unwrap(), name: String::new() };
    let data = talewire_proto::Payload::of(&json!({}));
    assert_eq!(world.stories.call(&nobody, "story.list", &data).await.unwrap_err().code.code(), 101);
}
