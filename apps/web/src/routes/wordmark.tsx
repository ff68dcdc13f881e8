/** The name of the place, which leads home. In: nothing. Out: a link. Called by every route's bar. */
import type { ReactNode } from 'react';
import { Link } from '../router';
import { Icon } from '../ui/icon';

export function Wordmark(): ReactNode {
  return (
    <Link to="/" className="wordmark" aria-label="Talewire, home">
      <Icon name="quill" size={24} />
      <span>Talewire</span>
    </Link>
  );
}
