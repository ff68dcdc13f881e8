/**
 * The text of one generation while it is being written: the stream rule of PROTOCOL.md section 4 as a
 * pure function. In: frames, in whatever order, number and completeness the network made of them.
 * Out: text that is always a true beginning of what the current attempt wrote, and whether something
 * is known to be missing. No timers, sockets or DOM. Called by live-story.
 */
import { isEnd, type GenerationStatus, type StreamFrame } from './wire.js';

export interface StreamText {
  readonly generation: string;
  /** 0 before the first attempt is known. */
  readonly attempt: number;
  readonly text: string;
  readonly status: GenerationStatus;
  /** How far this attempt is known to reach, in UTF-16 code units; more than `text` when something was missed. */
  readonly known: number;
}

export function startStream(generation: string): StreamText {
  return { generation, attempt: 0, text: '', status: 'queued', known: 0 };
}

/** Something was missed that only a snapshot can bring. */
export function needsSnapshot(state: StreamText): boolean {
  return state.known > state.text.length;
}

/** A newer attempt owes nothing to the older one's text. */
function beginAttempt(state: StreamText, attempt: number): StreamText {
  return { generation: state.generation, attempt, text: '', status: 'running', known: 0 };
}

export function stepStream(state: StreamText, frame: StreamFrame): StreamText {
  if (frame.generation !== state.generation || frame.attempt < state.attempt) return state;
  const newer = frame.attempt > state.attempt;

  switch (frame.type) {
    case 'reset':
      return newer ? beginAttempt(state, frame.attempt) : state;

    case 'delta': {
      const current = newer ? beginAttempt(state, frame.attempt) : state;
      const have = current.text.length;
      const end = frame.at + frame.text.length;
      const known = Math.max(current.known, end);
      if (frame.at === have) {
        return { ...current, text: current.text + frame.text, known };
      }
      // Older than what there is (ignored), or beyond it (a gap): either way only `known` may grow.
      return known === current.known ? current : { ...current, known };
    }

    case 'snapshot': {
      if (!newer && frame.text.length < state.text.length) {
        return isEnd(frame.status) && needsSnapshot(state) ? { ...state, known: state.text.length } : state;
      }
      const status = !newer && isEnd(state.status) ? state.status : frame.status;
      // The stream of an ended attempt brings no more than this: what it lacks comes with the turn.
      const known = newer || isEnd(frame.status) ? frame.text.length : Math.max(state.known, frame.text.length);
      return { generation: state.generation, attempt: frame.attempt, text: frame.text, status, known };
    }

    case 'end': {
      const current = newer ? beginAttempt(state, frame.attempt) : state;
      const known = Math.max(current.known, frame.at ?? 0);
      return current.status === frame.status && current.known === known ? current : { ...current, status: frame.status, known };
    }
  }
}
