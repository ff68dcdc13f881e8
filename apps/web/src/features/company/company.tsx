/**
 * Who is here: one round sign per person, a diamond for the agent. In: a live story and the agent's name.
 * Out: a row of signs whose names are in words for screen readers and on hover. Called by the story's bar.
 */
import type { LiveStory } from '@talewire/client';
import { usePresence } from '@talewire/react';
import { useState, type ReactNode } from 'react';
import { Avatar } from '../../ui/avatar';
import { Dialog } from '../../ui/dialog';
import './company.css';

const SHOWN_MAX = 4;

export function Company({ live, me, agent, writing }: { live: LiveStory; me: string; agent: { name: string; label: string }; writing: boolean }): ReactNode {
  const people = usePresence(live);
  const [open, setOpen] = useState(false);
  const names = people.map((person) => (person.user === me ? `${person.name} (you)` : person.name));
  return (
    <>
      <button type="button" className="company" data-testid="presence" data-count={people.length} onClick={() => setOpen(true)} aria-haspopup="dialog" aria-label={`Here now: ${[...names, `${agent.name}, agent`].join(', ')}`} title={[...names, `${agent.name} (agent)`].join(', ')}>
        {people.slice(0, SHOWN_MAX).map((person) => (
          <span key={person.user} className="company-one" data-testid="present" data-user={person.user} title={person.name}>
            <Avatar kind="person" id={person.user} name={person.name} size={30} />
          </span>
        ))}
        {people.length > SHOWN_MAX && <span className="company-more">+{people.length - SHOWN_MAX}</span>}
        <span className={`company-one company-agent${writing ? ' company-writing' : ''}`}>
          <Avatar kind="agent" id="agent" name={agent.name} size={30} />
        </span>
      </button>
      {open && (
        <Dialog title="Who is here" onClose={() => setOpen(false)} place="corner">
          <ul className="company-list">
            {people.map((person) => (
              <li key={person.user}>
                <Avatar kind="person" id={person.user} name={person.name} size={34} />
                <span>{person.name}{person.user === me && <span className="soft"> (you)</span>}</span>
              </li>
            ))}
            <li>
              <Avatar kind="agent" id="agent" name={agent.name} size={34} />
              <span>{agent.name} · agent<br /><span className="soft">{agent.label}</span></span>
            </li>
          </ul>
        </Dialog>
      )}
    </>
  );
}
