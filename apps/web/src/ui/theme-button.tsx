/**
 * Cycles system, light, dark. In: the kept theme. Out: a button that says what is chosen. Called by top bars.
 */
import { useState, type ReactNode } from 'react';
import { Icon } from './icon';
import { keepTheme, storedTheme, type Theme } from './theme';

const next: Record<Theme, Theme> = { system: 'light', light: 'dark', dark: 'system' };
const icon = { system: 'half', light: 'sun', dark: 'moon' } as const;

export function ThemeButton(): ReactNode {
  const [theme, setTheme] = useState(storedTheme);
  const label = `Theme: ${theme === 'system' ? 'as the system' : theme}. Change to ${next[theme] === 'system' ? 'as the system' : next[theme]}.`;
  const change = (): void => {
    keepTheme(next[theme]);
    setTheme(next[theme]);
  };
  return (
    <button type="button" className="icon-button" onClick={change} aria-label={label} title={label} data-testid="theme">
      <Icon name={icon[theme]} />
    </button>
  );
}
