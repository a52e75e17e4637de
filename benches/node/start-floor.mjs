import 'koffi';
