/**
 * The lint rules of every TypeScript file. Read by `npm run check`; nothing else calls it.
 * Three house rules stand on top of typescript-eslint's strict set: no `any`, no non-null `!`,
 * and every file opens with a comment that says what flows in, what flows out and who calls it.
 */
import js from '@eslint/js';
import hooks from 'eslint-plugin-react-hooks';
import tseslint from 'typescript-eslint';

/** A file whose first token is not a block comment is refused, so that the rule cannot rot. */
const opensWithComment = {
  create(context) {
    return {
      Program(node) {
        const text = context.sourceCode.getText();
        if (!text.startsWith('/**')) {
          context.report({ node, message: 'A file opens with a /** */ comment: what flows in, what flows out, who calls it.' });
        }
      },
    };
  },
};

export default tseslint.config(
  { ignores: ['**/dist/**', '**/node_modules/**', 'target/**', 'crates/**', 'xtask/**', '**/vite-env.d.ts'] },
  js.configs.recommended,
  ...tseslint.configs.strictTypeChecked,
  {
    languageOptions: {
      parserOptions: { projectService: { allowDefaultProject: ['eslint.config.js'] }, tsconfigRootDir: import.meta.dirname },
    },
    plugins: { house: { rules: { 'opens-with-comment': opensWithComment } }, 'react-hooks': hooks },
    rules: {
      'house/opens-with-comment': 'error',
      'react-hooks/rules-of-hooks': 'error',
      'react-hooks/exhaustive-deps': 'error',
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-non-null-assertion': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      // Numbers in sentences are fine; everything else must be turned to text on purpose.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true }],
      // `onClick={() => void act()}` is how an event starts an action nobody waits for.
      '@typescript-eslint/no-confusing-void-expression': ['error', { ignoreArrowShorthand: true, ignoreVoidOperator: true }],
      '@typescript-eslint/no-meaningless-void-operator': 'off',
    },
  },
  {
    // Features are rooms: a route composes them, none walks into another. ui/ knows no feature and no client.
    files: ['apps/web/src/features/**'],
    rules: { 'no-restricted-imports': ['error', { patterns: [{ regex: '(^\\.\\./(?!\\.\\./))|/features/|/routes/', message: 'Features never import each other or a route.' }] }] },
  },
  {
    files: ['apps/web/src/ui/**'],
    rules: { 'no-restricted-imports': ['error', { patterns: ['@talewire/*', '**/features/*', '**/routes/*'] }] },
  },
  { files: ['eslint.config.js'], ...tseslint.configs.disableTypeChecked },
);
