/**
 * Light, dark, or as the system has it. In: a choice kept in localStorage. Out: `data-theme` on <html>,
 * which theme.css reads. Called by main before the first paint, and by the theme button.
 */
export type Theme = 'system' | 'light' | 'dark';

const KEY = 'talewire.theme';

export function storedTheme(): Theme {
  try {
    const theme = localStorage.getItem(KEY);
    return theme === 'light' || theme === 'dark' ? theme : 'system';
  } catch {
    return 'system';
  }
}

export function applyTheme(theme: Theme): void {
  if (theme === 'system') delete document.documentElement.dataset['theme'];
  else document.documentElement.dataset['theme'] = theme;
}

export function keepTheme(theme: Theme): void {
  applyTheme(theme);
  try {
    if (theme === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
  } catch {
    // Without storage the choice lasts until the page is left.
  }
}
