//! Use cases that change a story: check the texts, make fresh ids, let the store run the rule in one transaction, then
//! announce what was written. Each is one method of [`crate::Method`].

use talewire_proto::generation::GenerationStatus;
use talewire_proto::{BranchId, ErrorCode, GenerationId, Payload, StoryId, TurnId};
use talewire_store::{About, Accepted, CallKey, Decided, Decision, Facts, Question, Refusal, StoryEvent};

use crate::method::Method;
use crate::random::{fresh, invite_code};
use crate::rules::{choices, generations, members, stories, texts, turns};
use crate::{Caller, Stories, params, refusal};

/// Longer texts are no invite codes.
const CODE_BYTES_MAX: usize = 64;

impl Stories {
    pub(crate) async fn create(&self, who: &Caller, params: params::Create) -> Result<Payload, Refusal> {
        let title = texts::title(&params.title, &self.limits)?;
        if let Some(opening) = &params.opening {
            texts::turn(opening, &self.limits)?;
        }
        let command = stories::Create {
            story: fresh(StoryId::from_random)?,
            branch: fresh(BranchId::from_random)?,
            user: who.user.clone(),
            name: who.name.clone(),
            title,
            opening: params.opening.map(|text| fresh(TurnId::from_random).map(|id| (id, text))).transpose()?,
        };
        let limits = self.limits.clone();
        let key = self.key(Method::StoryCreate, params.key)?;
        self.changed(who, About::NewStory, key, move |facts| stories::create(facts, command, &limits)).await
    }

    pub(crate) async fn rename(&self, who: &Caller, params: params::Rename) -> Result<Payload, Refusal> {
        let title = texts::title(&params.title, &self.limits)?;
        let key = self.key(Method::StoryRename, params.key)?;
        self.changed(who, About::Story(params.story), key, move |facts| stories::rename(facts, title)).await
    }

    pub(crate) async fn join(&self, who: &Caller, params: params::ByCode) -> Result<Payload, Refusal> {
        if params.code.as_str().len() > CODE_BYTES_MAX {
            return Err(ErrorCode::BadInvite.into());
        }
        let (limits, user, name) = (self.limits.clone(), who.user.clone(), who.name.clone());
        let rule = move |facts: &Facts| members::join(facts, &user, &name, &limits);
        self.changed(who, About::Invite(params.code), None, rule).await
    }

    pub(crate) async fn invite_create(&self, who: &Caller, params: params::InviteCreate) -> Result<Payload, Refusal> {
        let (limits, code) = (self.limits.clone(), invite_code()?);
        let key = self.key(Method::InviteCreate, params.key)?;
        let rule = move |facts: &Facts| members::invite(facts, code, params.role, &limits);
        self.changed(who, About::Story(params.story), key, rule).await
    }

    pub(crate) async fn invite_revoke(&self, who: &Caller, params: params::InviteRevoke) -> Result<Payload, Refusal> {
        self.changed(who, About::Story(params.story), None, move |facts| members::revoke(facts, params.code)).await
    }

    pub(crate) async fn turn_add(&self, who: &Caller, params: params::TurnAdd) -> Result<Payload, Refusal> {
        texts::turn(&params.text, &self.limits)?;
        let (limits, id) = (self.limits.clone(), fresh(TurnId::from_random)?);
        let key = self.key(Method::TurnAdd, params.key)?;
        let rule = move |facts: &Facts| turns::add(facts, id, params.text, &limits);
        self.changed(who, About::Branch(params.story, params.branch), key, rule).await
    }

    pub(crate) async fn generation_request(
        &self,
        who: &Caller,
        params: params::GenerationRequest,
    ) -> Result<Payload, Refusal> {
        let instruction = params.instruction.filter(|words| !words.as_str().trim().is_empty());
        if let Some(words) = &instruction {
            texts::instruction(words, &self.limits)?;
        }
        let (limits, id) = (self.limits.clone(), fresh(GenerationId::from_random)?);
        let key = self.key(Method::GenerationRequest, params.key)?;
        let rule = move |facts: &Facts| generations::request(facts, id, instruction, &limits);
        self.changed(who, About::Branch(params.story, params.branch), key, rule).await
    }

    pub(crate) async fn generation_stop(&self, who: &Caller, params: params::OfGeneration) -> Result<Payload, Refusal> {
        let generation = params.generation.clone();
        let about = About::Generation(params.story, params.generation);
        let answer = self.changed(who, about, None, generations::stop).await?;
        // Whoever writes looks into the store; a wake-up for what has ended does no harm.
        self.broker.cancel(&generation);
        Ok(answer)
    }

    pub(crate) async fn choice_pick(&self, who: &Caller, params: params::ChoicePick) -> Result<Payload, Refusal> {
        let ids = choices::Fresh {
            branch: fresh(BranchId::from_random)?,
            turn: fresh(TurnId::from_random)?,
            generation: fresh(GenerationId::from_random)?,
        };
        let limits = self.limits.clone();
        let key = self.key(Method::ChoicePick, params.key)?;
        let about = About::Choice(params.story, params.choice);
        self.changed(who, about, key, move |facts| choices::pick(facts, ids, &limits)).await
    }

    fn key(&self, method: Method, key: String) -> Result<Option<CallKey>, Refusal> {
        texts::key(&key, &self.limits)?;
        Ok(Some(CallKey { method: method.name(), key }))
    }

    /// One transaction, then the announcements, in a task of its own: when the caller goes away in between, everybody
    /// else still hears of it at once.
    async fn changed(
        &self,
        who: &Caller,
        about: About,
        key: Option<CallKey>,
        rule: impl FnOnce(&Facts) -> Result<Decision, Refusal> + Send + 'static,
    ) -> Result<Payload, Refusal> {
        let question = Question { user: who.user.clone(), about, key };
        let stories = self.clone();
        let task = tokio::spawn(async move {
            match stories.store.decide(question, Box::new(rule)).await.map_err(refusal::of_store)? {
                Decided::Refused(refusal) => Err(refusal),
                Decided::Accepted(accepted) => {
                    stories.announce(&accepted).await;
                    Ok(accepted.answer)
                }
            }
        });
        // It ends early only when the whole process does.
        task.await.unwrap_or_else(|_| Err(ErrorCode::Unavailable.into()))
    }

    async fn announce(&self, accepted: &Accepted) {
        self.broker.entries(&accepted.log).await;
        for written in &accepted.log {
            let (Some(data), Some(story)) = (&written.entry.publication.data, written.channel.story_id()) else {
                continue;
            };
            match data.read::<StoryEvent>() {
                Ok(StoryEvent::GenerationRequested { .. } | StoryEvent::ChoicePicked { generation: Some(_), .. }) => {
                    self.broker.job();
                }
                Ok(StoryEvent::GenerationEnded { generation, .. })
                    if generation.status == GenerationStatus::Cancelled =>
                {
                    self.broker.ended(&story, &generation.id, generation.attempt, generation.status).await;
                }
                _ => {}
            }
        }
    }
}
