/* Every string of the page, in both languages. Keys are the same in both; {x} is filled in by text(). */
const Qiusuo = Object.create(null);

(function (Q) {
  'use strict';

  const TABLE = {
    en: {
      language: 'English',
      chats: 'Chats', new_chat: 'New chat', search_chats: 'Find a chat', no_chats: 'No chats yet.',
      open_list: 'Show or hide the list of chats', close: 'Close', cancel: 'Cancel', ok: 'OK',
      save: 'Save', rename: 'Rename', remove: 'Delete', more: 'Rename, export or delete “{name}”',
      rename_title: 'Name of this chat', remove_title: 'Delete this chat?',
      remove_text: '“{name}” and all its versions will be gone for good.',
      remove_all: 'Delete all', remove_all_title: 'Delete all chats?',
      remove_all_text: 'All {n} chats in this browser will be gone for good.',
      export_one: 'Export', export_all: 'Export all', import_chats: 'Import',
      imported: '{n} chats imported.', import_bad: 'This file holds no chats of this page: {why}',
      kept_here: 'Chats are kept in this browser only.',
      not_kept: 'This browser does not let the page keep anything: chats are lost when it closes.',
      settings: 'Settings', theme: 'Light or dark', switch_language: '中文', help: 'Keyboard shortcuts',
      conversation: 'Conversation', you: 'You', assistant: 'Assistant',
      greeting: 'What would you like to find out?',
      greeting_small: 'What you write goes to this server and nowhere else.',
      message: 'Message', ask: 'Write a message', send: 'Send', stop: 'Stop', attach: 'Add text files',
      hint: 'Enter sends, Shift+Enter starts a new line',
      drop_here: 'Drop text files here', only_text: '“{name}”: only text files can be read here.',
      file_large: '“{name}” is too large: at most {max}.', file_named: 'File: {name}',
      remove_file: 'Remove “{name}”', lines: '{n} lines',
      copy: 'Copy', copied: 'Copied', copy_failed: 'Could not copy', copy_code: 'Copy code',
      edit: 'Edit', regenerate: 'Answer again', retry: 'Try again', send_edit: 'Send',
      edit_message: 'Edit the message', older: 'Earlier version', newer: 'Later version',
      version: 'Version {i} of {n}',
      thinking: 'Thinking …', thought: 'Thoughts', thought_for: 'Thought for {t} s',
      waiting: 'Waiting for the server …', queued: 'In the queue, place {n} …',
      reading: 'Reading the prompt: {i} of {n} tokens …',
      answering: 'The assistant is answering.', answered: 'The answer is complete, {n} tokens.',
      stopped: 'Stopped.', cut: 'Stopped at the limit of tokens.', filtered: 'Ended by the server.',
      call: 'Tool call: {name}', image: 'Image (not loaded): {name}',
      lost: 'The connection was lost.',
      unreachable: 'The server cannot be reached.', status: 'The server answered with status {n}.',
      strange: 'The server sent something that is not part of an answer.',
      models_failed: 'The list of models could not be read: {why}', no_model: 'No model',
      model: 'Model', system: 'System prompt', system_ph: 'How the assistant should behave',
      sampling: 'Sampling', temperature: 'Temperature', top_p: 'Top-p', top_k: 'Top-k', min_p: 'Min-p',
      max_tokens: 'Max tokens', seed: 'Seed', by_default: 'default',
      reset: 'Back to defaults', bad_number: 'A number from {lo} to {hi}',
      thinking_mode: 'Thinking', auto: 'Automatic', on: 'On', off: 'Off',
      key: 'API key', key_title: 'This server wants an API key',
      key_text: 'It is kept until this tab closes, and sent only to this server.',
      key_ph: 'Only if the server asks for one',
      tokens: '{n} tokens', speed: '{n} tokens/s', prompt: 'prompt {n}', cached: '{n} from cache',
      first: 'first after {t} s', context: 'context {i} of {n}',
      to_end: 'To the end', shortcut_send: 'Send', shortcut_line: 'New line',
      shortcut_stop: 'Stop the answer', shortcut_new: 'New chat', shortcut_list: 'List of chats',
      shortcut_settings: 'Settings', shortcut_focus: 'To the message field',
      shortcut_edit: 'Edit the last message', shortcut_again: 'Answer again',
      shortcut_help: 'This list', skip: 'Skip to the message field', code_region: 'Code, {name}',
      formula_bad: 'This formula cannot be shown', untitled: 'New chat', table: 'Table',
    },
    zh: {
      language: '中文',
      chats: '对话', new_chat: '新对话', search_chats: '查找对话', no_chats: '还没有对话。',
      open_list: '显示或隐藏对话列表', close: '关闭', cancel: '取消', ok: '确定',
      save: '保存', rename: '改名', remove: '删除', more: '“{name}”：改名、导出、删除',
      rename_title: '对话名称', remove_title: '删除这个对话？',
      remove_text: '“{name}”及其所有版本将被永久删除。',
      remove_all: '全部删除', remove_all_title: '删除所有对话？',
      remove_all_text: '此浏览器中的全部 {n} 个对话将被永久删除。',
      export_one: '导出', export_all: '全部导出', import_chats: '导入',
      imported: '已导入 {n} 个对话。', import_bad: '此文件中没有本页的对话：{why}',
      kept_here: '对话只保存在这个浏览器里。',
      not_kept: '此浏览器不允许保存数据：关闭后对话会丢失。',
      settings: '设置', theme: '浅色或深色', switch_language: 'English', help: '键盘快捷键',
      conversation: '对话内容', you: '你', assistant: '助手',
      greeting: '今天想问点什么？',
      greeting_small: '你写的内容只发给这台服务器。',
      message: '消息', ask: '写点什么', send: '发送', stop: '停止', attach: '添加文本文件',
      hint: '回车发送，Shift+回车换行',
      drop_here: '把文本文件放在这里', only_text: '“{name}”：这里只能读取文本文件。',
      file_large: '“{name}”太大：最多 {max}。', file_named: '文件：{name}',
      remove_file: '移除“{name}”', lines: '{n} 行',
      copy: '复制', copied: '已复制', copy_failed: '无法复制', copy_code: '复制代码',
      edit: '编辑', regenerate: '重新回答', retry: '重试', send_edit: '发送',
      edit_message: '编辑消息', older: '上一个版本', newer: '下一个版本',
      version: '第 {i} 版，共 {n} 版',
      thinking: '思考中……', thought: '思考过程', thought_for: '思考了 {t} 秒',
      waiting: '等待服务器……', queued: '排队中，第 {n} 位……',
      reading: '正在读取提示词：{i} / {n} 个词元……',
      answering: '助手正在回答。', answered: '回答完毕，共 {n} 个词元。',
      stopped: '已停止。', cut: '已到词元数上限，回答停止。', filtered: '回答被服务器终止。',
      call: '工具调用：{name}', image: '图片（未加载）：{name}',
      lost: '连接中断。',
      unreachable: '无法连接服务器。', status: '服务器返回状态 {n}。',
      strange: '服务器发来的内容不是回答的一部分。',
      models_failed: '无法读取模型列表：{why}', no_model: '没有模型',
      model: '模型', system: '系统提示词', system_ph: '希望助手怎样回答',
      sampling: '采样', temperature: '温度', top_p: 'Top-p', top_k: 'Top-k', min_p: 'Min-p',
      max_tokens: '最多词元数', seed: '随机种子', by_default: '默认',
      reset: '恢复默认', bad_number: '请填 {lo} 到 {hi} 之间的数',
      thinking_mode: '思考', auto: '自动', on: '开', off: '关',
      key: 'API 密钥', key_title: '此服务器需要 API 密钥',
      key_text: '密钥保存到此标签页关闭为止，只发给这台服务器。',
      key_ph: '服务器要求时才需要',
      tokens: '{n} 个词元', speed: '{n} 词元/秒', prompt: '提示词 {n}', cached: '其中 {n} 来自缓存',
      first: '{t} 秒后开始', context: '上下文 {i} / {n}',
      to_end: '到末尾', shortcut_send: '发送', shortcut_line: '换行',
      shortcut_stop: '停止回答', shortcut_new: '新对话', shortcut_list: '对话列表',
      shortcut_settings: '设置', shortcut_focus: '到消息框',
      shortcut_edit: '编辑上一条消息', shortcut_again: '重新回答',
      shortcut_help: '本列表', skip: '跳到消息框', code_region: '代码，{name}',
      formula_bad: '无法显示此公式', untitled: '新对话', table: '表格',
    },
  };

  let language = 'en';

  /* The string `key`, with {name} replaced by values[name]. */
  function text(key, values) {
    const found = TABLE[language][key];
    if (found === undefined) throw new Error('no string ' + key);
    return found.replace(/\{(\w+)\}/g, (whole, name) => String(values[name]));
  }

  /* Fills the strings of static elements: data-t is their text, data-t-label their name and tooltip,
   * data-t-hint the placeholder. */
  function apply(root) {
    for (const e of root.querySelectorAll('[data-t]')) e.textContent = text(e.dataset.t);
    for (const e of root.querySelectorAll('[data-t-label]')) {
      e.setAttribute('aria-label', text(e.dataset.tLabel));
      if (e.tagName === 'BUTTON') e.title = text(e.dataset.tLabel);
    }
    for (const e of root.querySelectorAll('[data-t-hint]')) e.placeholder = text(e.dataset.tHint);
  }

  function choose(tag) {
    language = String(tag).toLowerCase().startsWith('zh') ? 'zh' : 'en';
    document.documentElement.lang = language === 'zh' ? 'zh-CN' : 'en';
  }

  Q.strings = { TABLE, text, apply, choose, language: () => language };
})(Qiusuo);
